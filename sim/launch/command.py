"""A text -> the launch commands in it: which engine, which arguments, what the environment and its files add."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from sim.launch.arguments import EXPECTED, Arguments, Given, Told, read_arguments, read_environment
from sim.launch.table import Flag, FlagTable, table
from sim.launch.words import Statement, Word, fail, read_script
from sim.scenario.errors import Place, ScenarioError
from sim.scenario.reader import read, read_file
from sim.scenario.tree import Node, plain

MODULES: Final = {"vllm.entrypoints.openai.api_server": "vllm", "sglang.launch_server": "sglang"}
"""Python modules that start a server (`python -m`)."""
ROUTERS: Final = re.compile(
    r"sglang_router(\.launch_router)?|sglang\.srt\.disaggregation\.(mini_lb|launch_lb)|sgl-router|sglang-router|vllm-router|vllm_router|.*proxy_server\.py"
)
IMAGES: Final = re.compile(r"(^|/)vllm-openai(:|@|$)")
"""Container images whose entry point is an engine's server."""


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
class RouterCommand:
    """The command of a router in front of the workers."""

    policy: str | None
    prefills: tuple[str, ...]
    decodes: tuple[str, ...]
    """Addresses of the workers, as they were typed."""
    said: str


@dataclass(frozen=True)
class Read:
    """The launch commands of a text."""

    commands: tuple[Command, ...]
    routers: tuple[RouterCommand, ...]
    others: tuple[str, ...]
    """First words of the commands that start no server."""


def read_commands(text: str, name: str, folder: Path | None) -> Read:
    """The launch commands in `text`, called `name` in messages; files that they name are looked for in `folder` (None:
    no file is read).

    Raises ScenarioError where the text is no shell text, a flag is broken, or nothing in it starts a server.
    """
    script = read_script(text, name)
    commands: list[Command] = []
    routers: list[RouterCommand] = []
    others: list[str] = []
    for statement in script.statements:
        entry = _entry(statement.words)
        if entry is None:
            if said := " ".join(word.text for word in statement.words[:2]).strip():
                others.append(said)
        elif entry[0] == "router":
            routers.append(_router(statement.words[entry[1] :]))
        else:
            commands.append(_command(statement, *entry, script.files, folder))
    if not commands:
        start = Place(name, 1, 1, text.split("\n", 1)[0])
        raise fail(
            start,
            "no launch command here; expected vllm serve, python -m sglang.launch_server or trtllm-serve",
        )
    return Read(tuple(commands), tuple(routers), tuple(others))


def _entry(words: Sequence[Word]) -> tuple[str, int] | None:
    """The engine that a command starts, or `router`, and where its arguments begin; None: it starts neither."""
    texts = [word.text for word in words]
    found = (_entry_at(texts, at) for at in range(len(texts)))
    entry = next((one for one in found if one is not None), None)
    return entry if entry is None or entry[0] else None


def _entry_at(texts: Sequence[str], at: int) -> tuple[str, int] | None:
    """The same for the word at one place; an engine called "": a part of one that serves no model."""
    text, after = texts[at], texts[at + 1] if at + 1 < len(texts) else ""
    base = text.rsplit("/", 1)[-1]
    module = after if text == "-m" else ""
    entry: tuple[str, int] | None = None
    if ROUTERS.fullmatch(module or base):
        entry = "router", at + (2 if module else 1)
    elif module in MODULES:
        entry = MODULES[module], at + 2
    elif base in ("vllm", "sglang") and after == "serve":
        entry = base, at + 2
    elif base == "trtllm-serve" and after in ("disaggregated", "mm_embedding_serve", "grpc"):
        entry = "", at
    elif base == "trtllm-serve":
        entry = "trtllm", at + 1 + (after == "serve")
    elif IMAGES.search(text) and "docker" in texts[0] and "serve" not in texts[at:]:
        entry = "vllm", at + 1
    return entry


def _command(
    statement: Statement, engine: str, start: int, files: Mapping[str, str], folder: Path | None
) -> Command:
    known = table(engine)
    before, words = statement.words[:start], statement.words[start:]
    assigned = {pair[0]: Word(pair[1], w.place, w.unknown) for w in before if (pair := w.assigns)}
    arguments = read_environment({**statement.environment, **assigned}, known)
    said = read_arguments(words, known)
    if (config := said.settings.pop("config", None)) is not None:
        from_file = _file(known, config, files, folder)
        # TensorRT-LLM's file wins over its flags (llmapi/llm_utils.py, update_llm_args_with_extra_dict).
        said = _joined(said, from_file) if engine == "trtllm" else _joined(from_file, said)
    arguments = _joined(arguments, said)
    _model(arguments, words, statement.words[start - 1].place)
    return Command(engine, arguments, statement.words[start - 1].place, statement.note)


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
        raise fail(extra.place, f"'{extra.text}' belongs to no flag before it")


def _joined(first: Arguments, then: Arguments) -> Arguments:
    """Both; what `then` sets wins."""
    return Arguments(
        {**first.settings, **then.settings},
        [*first.positional, *then.positional],
        [*first.not_modelled, *then.not_modelled],
        [*first.ignored, *then.ignored],
    )


def _router(words: Sequence[Word]) -> RouterCommand:
    """What matters of a router: its policy and its workers. Its other flags are not read."""
    texts = [word.text for word in words]
    found: dict[str, list[str]] = {"policy": [], "prefill": [], "decode": []}
    names = {"--policy": "policy", "--prefill-policy": "policy"}
    names |= dict.fromkeys(
        ("--prefill", "--prefiller-ports", "--prefiller-port", "--prefill-ports"), "prefill"
    )
    names |= dict.fromkeys(("--decode", "--decoder-ports", "--decoder-port", "--decode-ports"), "decode")
    for at, text in enumerate(texts):
        key = names.get(text)
        for value in texts[at + 1 :] if key else ():
            if value.startswith("-") or (value.isdigit() and text in ("--prefill", "--decode")):
                break  # a bootstrap port follows the address
            found[str(key)].append(value)
    said = " ".join(texts[:4])
    policy = found["policy"][0] if found["policy"] else None
    return RouterCommand(policy, tuple(found["prefill"]), tuple(found["decode"]), said)


# --- files -------------------------------------------------------------------------------------------------------


def _file(known: FlagTable, config: Given, files: Mapping[str, str], folder: Path | None) -> Arguments:
    """What the YAML file says that a command names: written in the same text, or beside it."""
    name = str(config.value)
    if name in files:
        text = files[name]
    elif folder is None:
        raise fail(config.place, f"{name}: no file is read here; write it in the text (cat > {name} <<EOF)")
    else:
        try:
            text = read_file(folder / name, name)
        except ScenarioError as error:
            message = error.problems[0].message
            raise fail(
                config.place, f"{name}: {message}; put it there, or write it in the text (cat > {name} <<EOF)"
            ) from None
    root = read(text, name)
    if root.value is None:
        return Arguments()
    if not isinstance(root.value, dict):
        raise fail(root.place, "expected keys and values, as the engine's options")
    if known.engine == "trtllm":
        found = Arguments()
        _keys(root.value, "", known, name, found)
        return found
    return read_arguments(list(_as_words(root.value)), known)


def _as_words(keys: Mapping[str, Node]) -> Iterator[Word]:
    """A file of flags as the words that it stands for."""
    for key, node in keys.items():
        value = plain(node)
        flag = "--" + key.replace("_", "-")
        if value is None:
            continue
        if isinstance(value, bool):
            yield Word(flag if value else "--no-" + flag.removeprefix("--"), node.shown)
            continue
        yield Word(flag, node.shown)
        if isinstance(value, list) and not any(isinstance(item, dict | list) for item in value):
            yield from (Word(str(item), node.shown) for item in value)
        else:
            text = json.dumps(value) if isinstance(value, dict | list) else str(value)
            yield Word(text, node.shown, quoted=True)


def _keys(keys: Mapping[str, Node], above: str, known: FlagTable, file: str, found: Arguments) -> None:
    """The keys of TensorRT-LLM's file, sections by dots."""
    for key, node in keys.items():
        path = f"{above}{key}"
        flag = known.flags.get(path)
        section = isinstance(node.value, dict)
        names_section = any(name.startswith(f"{path}.") for name in known.flags)
        inside = section and names_section
        if flag is not None:
            value = plain(node)
            if flag.fate == "setting":
                _check_kind(flag, value, path, node.shown)
            if value is not None or flag.takes == "json":
                found.keep(flag, Given(value, _said(path, node, file), node.shown))
        if inside:
            assert isinstance(node.value, dict)
            _keys(node.value, f"{path}.", known, file, found)
        elif flag is None and not (node.value is None and names_section):
            why = f"no key that is known of {known.engine} {known.release}{known.nearest(path)}"
            found.not_modelled.append(Told(_said(path, node, file), why, node.shown))


def _said(path: str, node: Node, file: str) -> str:
    value = plain(node)
    shown = json.dumps(value) if isinstance(value, dict | list | bool) or value is None else str(value)
    return f"{path}: {shown if len(shown) <= 40 else shown[:40] + '...'} ({Path(file).name})"


KINDS: Final[Mapping[str, tuple[type, ...]]] = {
    "count": (int,),
    "int": (int,),
    "number": (int, float),
    "switch": (bool,),
    "text": (str,),
    "json": (dict, str),
}


def _check_kind(flag: Flag, value: object, path: str, place: Place) -> None:
    kinds = KINDS[flag.takes]
    fits = isinstance(value, kinds) and (flag.takes == "switch" or not isinstance(value, bool))
    if flag.takes == "count":
        fits = fits and isinstance(value, int) and value >= 1
    if value is not None and not fits:
        raise fail(place, f"{path} takes {EXPECTED[flag.takes]}, got {value!r}")
