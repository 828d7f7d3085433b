"""Launch commands -> a scenario that passes `tokenworks check`, with the reason of every key.

    text -> commands (words, flags, files) -> one derived pool per command -> pools of a service -> scenario, checked

A command says nothing of the requests, the price and the GPU: those are placeholders, and named as such.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sim import catalog
from sim.catalog import UnknownName
from sim.launch import sglang, trtllm, vllm
from sim.launch.arguments import Told
from sim.launch.command import Command, Read, read_commands
from sim.launch.derived import Derived, Machine, Noted
from sim.launch.document import dotted_reasons, nested, to_text
from sim.launch.model_names import checkpoint
from sim.launch.pools import PoolOf, gather, router_key, shared, with_roles
from sim.launch.words import fail
from sim.model.deployment import deploy
from sim.model.room import check_room
from sim.scenario.errors import DeploymentError, KeyPath, LocatedProblem, Problem, ScenarioError, dotted
from sim.scenario.loading import parse
from sim.scenario.schema import Scenario
from sim.step.assemble import check_backends

ENGINES: Final[Mapping[str, Callable[[Command, Machine], Derived]]] = {
    "sglang": sglang.derive,
    "vllm": vllm.derive,
    "trtllm": trtllm.derive,
}
BRANCHES: Final = ("if", "elif", "else", "case", "for", "while", "until")
PLACEHOLDER: Final = "PLACEHOLDER: a launch command does not say it"
PLACEHOLDER_GPU: Final = "h200_sxm"
PLACEHOLDER_WORKLOAD: Final[Mapping[KeyPath, Any]] = {
    ("workload", "arrivals", "closed_loop", "concurrency"): 64,
    ("workload", "lengths", "input", "uniform"): (800, 1000),
    ("workload", "lengths", "output", "uniform"): (160, 200),
    ("workload", "requests"): 640,
}
PLACEHOLDER_USD_PER_GPU_HOUR: Final = 1.0
"""Where the catalog has no price of the GPU."""


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
    folder: Path = Path(),
) -> Launch:
    """The scenario of the launch commands in `text`, called `name` in messages; their files lie in `folder`.

    `nodes`: nodes that there are. `engine_version`: release whose defaults hold; the newest known without it.
    Raises ScenarioError with the place of what is wrong, and UnknownName for the GPU.
    """
    found = read_commands(text, name, folder)
    commands = with_roles(found.commands, found.routers)
    machine = _machine(commands, gpu, nodes, engine_version, folder)
    derived = [ENGINES[command.engine](command, machine) for command in commands]
    pools = gather(derived, found.routers, nodes)
    not_modelled = [
        told for one in derived for told in (*one.command.arguments.not_modelled, *one.not_modelled)
    ]
    keys = _keys(machine, commands[0], pools, found, not_modelled, gpu, engine_version)
    keys = _checked(keys, not_modelled, name)
    placeholders = ("workload", "price", *(() if gpu else ("gpu",)))
    once = tuple(dict.fromkeys(not_modelled))
    ignored = tuple(dict.fromkeys(told for one in derived for told in one.command.arguments.ignored))
    reasons = {path: (noted.value, noted.why) for path, noted in keys.items()}
    head = (
        f"Read from {len(commands)} launch command(s) of {commands[0].engine} by `tokenworks launch read`.",
        "Every key says which flag it comes from, or whose default it is.",
    )
    notes = _notes(machine, found, placeholders, engine_version)
    return Launch(reasons, once, ignored, placeholders, notes, to_text(head, reasons, once))


def _machine(
    commands: Sequence[Command], gpu: str | None, nodes: int | None, release: str | None, folder: Path
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
    try:
        known = checkpoint(str(first.value("model")), folder)
    except (UnknownName, catalog.ConfigError) as unknown:
        raise fail(first.where("model"), str(unknown)) from None
    device = catalog.gpu(gpu or PLACEHOLDER_GPU)
    return Machine(
        known, catalog.model(known.model), device, catalog.launch_defaults(first.engine, release), nodes
    )


def _keys(
    machine: Machine,
    first: Command,
    pools: Mapping[Any, PoolOf],
    found: Read,
    told: list[Told],
    gpu: str | None,
    release: str | None,
) -> dict[KeyPath, Noted]:
    """All keys in the order of the file."""
    place = first.place
    keys: dict[KeyPath, Noted] = {
        ("model",): Noted(machine.checkpoint.model, str(first.value("model")), first.where("model")),
        ("gpu",): Noted(machine.gpu.name, f"--gpu {gpu}" if gpu else f"{PLACEHOLDER}; give --gpu", place),
        ("engine",): Noted(first.engine, "the command", place),
    }
    if release and "engine_version" in Scenario.model_fields:
        keys[("engine_version",)] = Noted(release, f"--engine-version {release}", place)
    for role, pool in pools.items():
        keys[("deployment", role, "workers")] = pool.workers
        for key, noted in pool.derived.pool.items():
            if key != "workers":
                keys[("deployment", role, key)] = noted
    whole, differences = shared(pools.values())
    told += differences
    if routed := router_key(found.routers, told):
        whole[("router",)] = Noted(*routed, place)
    order = ("precision", "speculation", "overlap", "scheduling", "prefix_cache", "router")
    keys |= dict(sorted(whole.items(), key=lambda item: order.index(str(item[0][0]))))
    room = _room(first)
    for path, value in PLACEHOLDER_WORKLOAD.items():
        share = {"input": 2, "output": 8}.get(str(path[-2]))
        fitting = [max(1, min(bound, room // share)) for bound in value] if share and room else value
        keys[path] = Noted(list(fitting) if share else fitting, PLACEHOLDER, place)
    tiers = catalog.price_tiers(machine.gpu.name)
    price = ("rent_3yr" if "rent_3yr" in tiers else tiers[0]) if tiers else PLACEHOLDER_USD_PER_GPU_HOUR
    keys[("price", "tier" if tiers else "usd_per_gpu_hour")] = Noted(price, PLACEHOLDER, place)
    return keys


def _room(command: Command) -> int | None:
    """The longest request that the command allows, tokens; None where it says nothing that can be read."""
    asked = command.value("context")
    text = str(asked).lower()
    scale = {"k": 1024}.get(text[-1:], 1)
    digits = text.rstrip("k")
    return int(digits) * scale if asked is not None and digits.isdigit() else None


def _checked(keys: dict[KeyPath, Noted], told: list[Told], name: str) -> dict[KeyPath, Noted]:
    """The keys, which pass the check; what the engine would do by itself and does not fit here is dropped and told.

    Raises ScenarioError at the flag behind the key that is wrong.
    """
    for _ in range(4):
        data = {path: (noted.value, noted.why) for path, noted in keys.items()}
        loaded = parse(to_text((), data, ()), name)
        try:
            check_room(loaded.scenario, deploy(loaded.scenario), _least_tokens(keys))
            if any(path[-1] == "moe_backend" for path in keys):
                check_backends(loaded.scenario)
        except DeploymentError as error:
            dropped = [path for problem in error.problems for path in _droppable(problem, keys)]
            if not dropped:
                raise _at_flags(error.problems, keys, told) from None
            for path in dropped:
                noted = keys.pop(path)
                flag = noted.why if path[-1] == "moe_backend" else dotted(path)
                told.append(Told(flag, _DROPPED[str(path[-1])].format(value=noted.value, why=noted.why)))
        else:
            return keys
    raise AssertionError("every round drops a key, and there are few")


_DROPPED: Final = {
    "memory_fraction": "{value} ({why}) leaves no room for the KV cache: the engine would not start "
    "without its memory flag; the catalog's rule is taken",
    "moe_backend": "{value} was not measured for this GPU and format; the profile's choice is taken",
}


def _droppable(problem: Problem, keys: Mapping[KeyPath, Noted]) -> list[KeyPath]:
    """Keys that may go so that the rest passes: kernels that nobody measured, and memory by an engine's own rule."""
    if problem.path in keys and problem.path[-1] == "moe_backend":
        return [problem.path]
    memory = (*problem.path, "memory_fraction")
    return [memory] if memory in keys and keys[memory].why.startswith("default of") else []


def _least_tokens(keys: Mapping[KeyPath, Noted]) -> int:
    return sum(int(keys[("workload", "lengths", side, "uniform")].value[0]) for side in ("input", "output"))


def _at_flags(
    problems: Sequence[Problem], keys: Mapping[KeyPath, Noted], told: Sequence[Told]
) -> ScenarioError:
    """Problems of the scenario at the flags that they follow from, and the flags that nobody knows: a misspelt one
    may be the cause."""

    def located(problem: Problem) -> LocatedProblem:
        path = problem.path
        noted = keys.get(path) or next(
            (noted for known, noted in keys.items() if known[: len(path)] == path), keys[("model",)]
        )
        said = f" (from {noted.why})" if path in keys else ""
        return LocatedProblem((), f"{dotted(path)}: {problem.message}{said}", noted.place)

    unknown = [
        LocatedProblem((), f"{one.flag}: {one.why}", one.unknown) for one in told if one.unknown is not None
    ]
    return ScenarioError([*(located(problem) for problem in problems), *unknown])


def _notes(
    machine: Machine, found: Read, placeholders: Sequence[str], release: str | None
) -> tuple[str, ...]:
    """What a reader must know beside the scenario."""
    notes = [f"placeholders, since a launch command does not say them: {', '.join(placeholders)}"]
    if release and machine.defaults.release != release:
        notes.append(
            f"defaults are those of {machine.defaults.engine} {machine.defaults.release}, not of {release}"
        )
    branches = [other for other in found.others if other.split()[0] in BRANCHES]
    if branches:
        notes.append(f"branches and loops were not decided, every line counts: {'; '.join(branches)}")
    if found.others:
        notes.append(f"commands that start no server were not read: {'; '.join(dict.fromkeys(found.others))}")
    return tuple(notes)
