"""A text -> the launch commands in it: which engine, which arguments, what the environment and its files add."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from sim.launch.arguments import Arguments, Given, read_arguments, read_environment
from sim.launch.entries import DISAGGREGATED, ROUTER, EntryPoint, Image, assigned, entry, image, started
from sim.launch.option_files import Files, keys_in, read_options
from sim.launch.routers import RouterCommand, read_router, read_servers
from sim.launch.shell import read_script
from sim.launch.table import table
from sim.launch.words import Statement, Word, fail
from sim.scenario.errors import Place

OVERRIDES: Final = "--override-engine-args"
"""What messages call the keys in that flag of Dynamo's."""
LISTED: Final = re.compile(r"^\s*(command|args|entrypoint):", re.MULTILINE)
"""What files of Kubernetes and Compose have in place of a command."""
DASHES: Final = ("\u2013", "\u2014", "\u2212")
"""What pages make of a hyphen: an en dash, an em dash, a minus."""


@dataclass(frozen=True)
class Command:
    """One launch command."""

    engine: str
    arguments: Arguments
    place: Place
    note: str
    """The comments right above it."""
    told_role: Literal["prefill", "decode"] | None = None
    """Its side of a disaggregated service, where something beside it tells."""
    wrapper: str = ""
    """What starts the engine in its place, such as `dynamo`."""

    def given(self, name: str) -> Given | None:
        """What it says of one setting; None where it says nothing."""
        return self.arguments.settings.get(name)

    def value(self, name: str, default: Any = None) -> Any:
        """The value of a setting, or the default."""
        given = self.given(name)
        return default if given is None or given.value is None else given.value

    def said(self, *names: str) -> str:
        """The flags behind these settings, as they were typed."""
        return ", ".join(given.said for name in names if (given := self.given(name)))

    def where(self, *names: str) -> Place:
        """Where the first of these settings stands; the command where none is given."""
        return next((given.place for name in names if (given := self.given(name))), self.place)


@dataclass(frozen=True)
class Read:
    """The launch commands of a text."""

    commands: tuple[Command, ...]
    routers: tuple[RouterCommand, ...]
    others: tuple[str, ...]
    """First words of the commands that start no server."""
    images: tuple[Image, ...]
    """Container images that the text names, whose tags are releases of an engine."""


def read_commands(text: str, name: str, folder: Path | None) -> Read:
    """The launch commands in `text`, called `name` in messages; files that they name are looked for in `folder` (None:
    no file is read).

    Raises ScenarioError where the text is no shell text, a flag is broken, or nothing in it starts a server.
    """
    script = read_script(text, name)
    files = Files(script.files, folder)
    commands: list[Command] = []
    routers: list[RouterCommand] = []
    others: list[str] = []
    statements = [one for outer in script.statements for one in started(outer, text)]
    named = [image(word) for one in (*script.statements, *statements) for word in one.words]
    for statement in statements:
        found = entry(statement.words)
        if found is None:
            if said := " ".join(word.text for word in statement.words[:2]).strip():
                others.append(said)
        elif found.engine == ROUTER:
            routers.append(read_router(statement.words, found.start))
        elif found.engine == DISAGGREGATED:
            routers.append(read_servers(statement.words, found.start, files))
        else:
            commands.append(_command(statement, found, files))
    if not commands:
        start = Place(name, 1, 1, text.split("\n", 1)[0])
        says = "no launch command here; expected vllm serve, python -m sglang.launch_server or trtllm-serve"
        if LISTED.search(text):
            says += "; `command:` and `args:` of a YAML file are not put together: write the command as one types it"
        raise fail(start, says)
    return Read(tuple(commands), tuple(routers), tuple(others), tuple(filter(None, named)))


def _command(statement: Statement, found: EntryPoint, files: Files) -> Command:
    known = table(found.engine, found.wrapper)
    before, words = statement.words[: found.start], statement.words[found.start :]
    place = before[-1].place
    arguments = read_environment({**statement.environment, **assigned(before)}, known)
    said = read_arguments(words, known)
    if (config := said.settings.pop("config", None)) is not None:
        name = str(config.value)
        from_file = read_options(known, files.read(name, config.place), name)
        # TensorRT-LLM's file wins over its flags (llmapi/llm_utils.py, update_llm_args_with_extra_dict).
        said = _joined(said, from_file) if found.engine == "trtllm" else _joined(from_file, said)
    if (overrides := said.settings.pop("overrides", None)) is not None:  # over the file, in Dynamo
        keys = keys_in(str(overrides.value), OVERRIDES)
        said = _joined(said, read_options(known, keys, OVERRIDES))
    arguments = _joined(arguments, said)
    _model(arguments, words, place)
    return Command(found.engine, arguments, place, statement.note, wrapper=found.wrapper)


def _model(arguments: Arguments, words: Sequence[Word], place: Place) -> None:
    """The model is a flag, or the first word that is none."""
    positional = arguments.positional
    if "model" not in arguments.settings:
        if not positional:
            raise fail(place, "the command names no model")
        first = positional.pop(0)
        arguments.settings["model"] = Given(first.text, first.text, first.place)
    if positional:
        extra = positional[0]
        if extra.text[0:1] in DASHES:
            raise fail(
                extra.place, f"'{extra.text}' begins with a dash that is no hyphen; write - or -- instead"
            )
        raise fail(extra.place, f"'{extra.text}' belongs to no flag before it")


def _joined(first: Arguments, then: Arguments) -> Arguments:
    """Both; what `then` sets wins."""
    return Arguments(
        {**first.settings, **then.settings},
        [*first.positional, *then.positional],
        [*first.not_modelled, *then.not_modelled],
        [*first.ignored, *then.ignored],
    )
