"""Launch commands -> a scenario that passes `tokenworks check`, with the reason of every key.

    text -> commands (words, flags, files) -> one derived pool per command -> pools of a service -> scenario, checked

A command says nothing of the requests, the price and the GPU: those are placeholders, and named as such.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sim import catalog
from sim.catalog import UnknownName
from sim.launch import sglang, trtllm, vllm
from sim.launch.arguments import IDENTITIES, SPARE, Told
from sim.launch.checked import checked
from sim.launch.command import Command, Read, read_commands
from sim.launch.derived import Derived, Machine, Noted, Role
from sim.launch.document import dotted_reasons, nested, to_text
from sim.launch.entries import Image
from sim.launch.host_memory import with_host_memory
from sim.launch.model_names import Checkpoint, checkpoint
from sim.launch.placeholders import GPU, PLACEHOLDER, longest_request, placeholders
from sim.launch.pools import PoolOf, gather, router_key, shared
from sim.launch.sides import with_roles
from sim.launch.words import CLOSES, OPENS, fail
from sim.scenario.errors import KeyPath

ENGINES: Final[Mapping[str, Callable[[Command, Machine], Derived]]] = {
    "sglang": sglang.derive,
    "vllm": vllm.derive,
    "trtllm": trtllm.derive,
}
SHELL: Final = (
    *OPENS,
    *CLOSES,
    "then",
    "else",
    "elif",
    "do",
    "set",
    "echo",
    "source",
    "cd",
    "{",
    "}",
    "wait",
    "tee",
    "sleep",
    "mkdir",
    "exit",
    "trap",
)
"""Words of the shell itself, which start nothing."""


@dataclass(frozen=True)
class Launch:
    """What launch commands say."""

    keys: Mapping[KeyPath, tuple[Any, str]]
    """Value and reason of every key, in the order of the file."""
    not_modelled: tuple[Told, ...]
    ignored: tuple[Told, ...]
    placeholders: tuple[str, ...]
    """Keys that no command says."""
    notes: tuple[str, ...]
    text: str
    """The scenario as YAML."""

    @property
    def scenario(self) -> dict[str, Any]:
        """The scenario as plain data."""
        return nested(self.keys)

    def json(self) -> dict[str, Any]:
        """What `launch read --json` prints."""
        return {
            "scenario": self.scenario,
            "reasons": dict(dotted_reasons(self.keys)),
            "not_modelled": [{"flag": told.flag, "why": told.why} for told in self.not_modelled],
            "ignored": [{"flag": told.flag, "why": told.why} for told in self.ignored],
            "placeholders": list(self.placeholders),
        }


def read_launch(
    text: str,
    gpu: str | None = None,
    nodes: int | None = None,
    engine_version: str | None = None,
    name: str = "command",
    folder: Path | None = Path(),
) -> Launch:
    """The scenario of the launch commands in `text`, called `name` in messages; their files lie in `folder` (None: no
    file is read).

    `nodes`: nodes that there are. `engine_version`: release whose defaults hold; that of the container's image
    without it, else the newest known.
    Raises ScenarioError with the place of what is wrong, and UnknownName for the GPU.
    """
    found = read_commands(text, name, folder)
    commands = with_roles(found.commands, found.routers)
    release = _release(commands[0], found, engine_version)
    machine = _machine(commands, gpu, nodes, release.value if release else None, folder)
    derived = [ENGINES[command.engine](command, machine) for command in commands]
    pools = gather(derived, found.routers, nodes)
    not_modelled = [
        told for one in derived for told in (*one.command.arguments.not_modelled, *one.not_modelled)
    ]
    keys = _keys(machine, commands[0], pools, found, not_modelled, gpu, release)
    keys = checked(keys, not_modelled, name)
    ratio = next((one.host_ratio for one in derived if one.host_ratio), None)
    keys = with_host_memory(keys, ratio, name)
    unsaid = ("workload", "price", *(() if gpu else ("gpu",)))
    once = tuple(dict.fromkeys(not_modelled))
    ignored = tuple(dict.fromkeys(told for command in commands for told in _ignored(command)))
    reasons = {path: (noted.value, noted.why) for path, noted in keys.items()}
    head = (
        f"Read from {len(commands)} launch command(s) of {commands[0].engine} by `tokenworks launch read`.",
        "Every key says which flag it comes from, or whose default it is.",
    )
    notes = _notes(machine, found, unsaid, release)
    return Launch(reasons, once, ignored, unsaid, notes, to_text(head, reasons, once))


def _release(first: Command, found: Read, asked: str | None) -> Noted | None:
    """The release that the user names, or else the tag of the container's image, where all that are named have one."""
    if asked:
        return Noted(asked, f"--engine-version {asked}", first.place)
    images = {image.release: image for image in _images(first.engine, found)}
    if len(images) != 1:
        return None
    [(release, image)] = images.items()
    return Noted(release, f"the tag of {image.name}", image.word.place)


def _images(engine: str, found: Read) -> Iterator[Image]:
    """Images of the engine in a text."""
    yield from (image for image in found.images if image.engine == engine)


def _machine(
    commands: Sequence[Command], gpu: str | None, nodes: int | None, release: str | None, folder: Path | None
) -> Machine:
    """What all commands run on: one engine, one model."""
    first = commands[0]
    for other in commands[1:]:
        if other.engine != first.engine:
            raise fail(
                other.place, f"a command of {other.engine} beside one of {first.engine}; expected one engine"
            )
        if other.value("model") != first.value("model"):
            models = f"{other.value('model')} beside {first.value('model')}"
            raise fail(other.where("model"), f"{models}; expected one model")
    known, named = _checkpoint(first, folder)
    device = catalog.gpu(gpu or GPU)
    defaults = catalog.launch_defaults(first.engine, release)
    return Machine(known, named, catalog.model(known.model), device, defaults, nodes)


def _checkpoint(command: Command, folder: Path | None) -> tuple[Checkpoint, str]:
    """The checkpoint that a command serves, and what names it: where its path names no model (`/model`), the name that
    it is served under."""
    path = str(command.value("model"))
    try:
        return checkpoint(path, folder), path
    except catalog.ConfigError as unusable:
        raise fail(command.where("model"), str(unusable)) from None
    except UnknownName as unknown:
        for name in command.value("served", ()):
            with suppress(UnknownName, catalog.ConfigError):
                return checkpoint(name, None), command.said("served")
        raise fail(command.where("model"), str(unknown)) from None


def _keys(
    machine: Machine,
    first: Command,
    pools: Mapping[Role, PoolOf],
    found: Read,
    told: list[Told],
    gpu: str | None,
    release: Noted | None,
) -> dict[KeyPath, Noted]:
    """All keys in the order of the file."""
    place = first.place
    keys: dict[KeyPath, Noted] = {
        ("model",): Noted(machine.checkpoint.model, machine.named, first.where("model")),
        ("gpu",): Noted(machine.gpu.name, f"--gpu {gpu}" if gpu else f"{PLACEHOLDER}; give --gpu", place),
        ("engine",): Noted(first.engine, "the command", place),
    }
    if release:
        keys[("engine_version",)] = release
    elif machine.model.compressed:
        why = f"{machine.by_default}; what {machine.model.name} takes of the memory differs from release to release"
        keys[("engine_version",)] = Noted(machine.defaults.release, why, place)
    for role, pool in pools.items():
        keys[("deployment", role, "workers")] = pool.workers
        for key, noted in pool.derived.pool.items():
            if key != "workers":
                keys[("deployment", role, key)] = noted
    whole, differences = shared(pools)
    told += differences
    if routed := router_key(found.routers, told):
        whole[("router",)] = Noted(*routed, place)
    order = ("precision", "speculation", "overlap", "indexer", "scheduling", "prefix_cache", "router")
    keys |= dict(sorted(whole.items(), key=lambda item: order.index(str(item[0][0]))))
    keys |= placeholders(machine.gpu, longest_request(first), place)
    return keys


def _ignored(command: Command) -> Iterator[Told]:
    """Flags that set no key: those that do not matter, and those that only tell commands apart."""
    yield from command.arguments.ignored
    for name, given in command.arguments.settings.items():
        if name == "served":
            yield Told(given.said, "the name that clients call the model by")
        elif name in IDENTITIES or name == "headless":
            yield Told(given.said, "it tells the nodes and workers of a service apart, and where they listen")
        elif name in SPARE and given.value is None:
            yield Told(given.said, "a variable that is not known here, and that the rest makes up for")
        elif name == "context":
            yield Told(given.said, "it bounds the length of a request; a workload within it is not changed")


def _notes(machine: Machine, found: Read, unsaid: Sequence[str], release: Noted | None) -> tuple[str, ...]:
    """What a reader must know beside the scenario."""
    notes = [f"placeholders, since a launch command does not say them: {', '.join(unsaid)}"]
    engine, described = machine.defaults.engine, machine.defaults.release
    if release and described != release.value:
        notes.append(f"defaults are those of {engine} {described}, not of {release.value}")
    several = dict.fromkeys(image.release for image in _images(engine, found))
    if not release and several:
        notes.append(f"images of {engine} {', '.join(several)}: one release is read; give --engine-version")
    if branches := [other for other in found.others if other.split()[0] in OPENS]:
        says = "every command counts, and what they assign is not known"
        notes.append(f"branches and loops were not decided: {says}: {'; '.join(branches)}")
    others = [other for other in dict.fromkeys(found.others) if other.split()[0] not in SHELL]
    if others:
        notes.append(f"commands that start no server were not read: {'; '.join(others)}")
    return tuple(notes)
