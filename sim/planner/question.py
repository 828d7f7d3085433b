"""A plan file -> the question: a scenario without a deployment, what is promised, and what may be varied.

A plan file holds `search`, and a scenario around it: written in the file itself, taken from `base`, or both, the file's
own keys on top. Its deployment is what is looked for.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from sim import catalog
from sim.scenario.errors import LocatedProblem, Problem, ScenarioError, brief, did_you_mean, dotted
from sim.scenario.form import key_paths, schema_at
from sim.scenario.loading import LoadedScenario, apply, from_tree
from sim.scenario.reader import read, read_file
from sim.scenario.schema import Scenario
from sim.scenario.tree import Node, find, graft, merge, nest, plain

KINDS: Final = ("aggregated", "disaggregated")
OWN_KEYS: Final = ("gpu", "kind", "ratio", "max_gpus", "exclude")
"""Keys of `search` beside those of a scenario."""
RESERVED: Final = (
    "a plan chooses how many GPUs there are, at one price each; expected in the scenario that it answers with"
)
OPERATIONS: Final = frozenset(("autoscale", "failures", "fleet"))
"""Sections about a deployment at work: like it, they are not taken from a base."""
OBJECTIVE: Final = re.compile(r"(ttft|tpot|e2e)_(mean|p\d{1,2}(?:\.\d+)?)_s")
ASSUMED: Final = {"deployment": {"serve": {"gpus": 8}}, "gpu": "h200_sxm"}
"""Stands in a plan's scenario where the search will put something else."""
ASSUMED_DURATION_S, ASSUMED_DAY_S = 600.0, 86_400.0
"""Of a workload without an end, and of one through a day: the planner decides how long it simulates itself."""


@dataclass(frozen=True, slots=True)
class Objective:
    """A promise: the percentile of a latency (None: its mean) stays below a bound."""

    metric: str
    """Column of a result's requests: ttft_s, tpot_s or e2e_s."""
    percentile: float | None
    bound_s: float

    @property
    def key(self) -> str:
        """As a plan file writes it: `ttft_p99_s`."""
        at = "mean" if self.percentile is None else f"p{self.percentile:g}"
        return f"{self.metric.removesuffix('_s')}_{at}_s"

    @property
    def label(self) -> str:
        """For people: `TTFT p99`."""
        return self.key.removesuffix("_s").replace("_", " ").replace("ttft", "TTFT").replace("tpot", "TPOT")


@dataclass(frozen=True)
class Question:
    """What is asked: a workload, promises, and what may be varied."""

    name: str
    loaded: LoadedScenario
    """With a stand-in for the deployment."""
    objectives: tuple[Objective, ...]
    varied: Mapping[str, tuple[Any, ...]]
    """Scenario keys outside the pools -> values to try; `gpu` is always there, and a value of it may be a section: a
    GPU with other keys that go along, such as its price."""
    pinned: Mapping[str, Mapping[str, tuple[Any, ...]]]
    """Role -> key of its pool -> values to try instead of the planner's own."""
    kinds: tuple[str, ...]
    ratios: tuple[str, ...] | None
    """`prefill:decode` workers of a replica; None: the planner's own."""
    max_gpus: int | None
    """Paid for at most."""
    exclude: tuple[Mapping[str, Any], ...]
    """A candidate that has all values of one of these is left out."""
    margin: bool = True
    """Whether the plan is to hold where the service is slower by the expected error."""

    def scenario(self, overrides: Mapping[str, object]) -> Scenario:
        """The scenario with dotted keys laid over it. Raises ScenarioError."""
        return apply(self.loaded, overrides).scenario


def load_question(path: str | Path) -> Question:
    """The question in a plan file; relative names in it start from its folder.

    Raises ScenarioError with every problem found: file, line, column, key and what was expected.
    """
    tree = read(read_file(Path(path), str(path)), str(path))
    if not isinstance(tree.value, dict):
        raise ScenarioError(
            [LocatedProblem((), "expected a section with `search` and a scenario", tree.place)]
        )
    search = tree.value.get("search", Node({}, tree.place))
    if not isinstance(search.value, dict):
        raise ScenarioError([LocatedProblem(("search",), "expected a section", search.place)])
    problems = [*_problems(search), *_operated(tree)]
    objectives, known = _objectives(tree, problems)
    if problems:
        raise ScenarioError(problems)
    loaded = _without_deployment(from_tree(_scenario_tree(tree, search, known)))
    if loaded.scenario.price.reserved is not None:
        raise loaded.located([Problem(("price", "reserved"), RESERVED)])
    objectives = objectives or _own_objectives(loaded.scenario)
    if not objectives:
        says = "expected `objectives`, such as {ttft_p99_s: 2.0, tpot_p99_s: 0.05}: without a promise one GPU will do"
        raise ScenarioError([LocatedProblem((), says, tree.place)])
    lists = {key: _values(node) for key, node in search.value.items() if key not in OWN_KEYS}
    own = {key: _values(search.value[key]) for key in OWN_KEYS if key in search.value}
    pools: dict[str, dict[str, tuple[Any, ...]]] = {}
    for key, values in lists.items():
        if key.startswith("deployment."):
            _, role, rest = key.split(".", 2)
            pools.setdefault(role, {})[rest] = values
    return Question(
        name=Path(path).stem,
        loaded=loaded,
        objectives=objectives,
        varied={
            "gpu": tuple(_gpu(entry) for entry in own.get("gpu", (loaded.scenario.gpu,))),
            **{key: values for key, values in lists.items() if not key.startswith("deployment.")},
        },
        pinned=pools,
        kinds=tuple(own.get("kind", KINDS)),
        ratios=tuple(own["ratio"]) if "ratio" in own else None,
        max_gpus=own["max_gpus"][0] if "max_gpus" in own else None,
        exclude=tuple(_excluded(entry) for entry in own.get("exclude", ())),
    )


def _scenario_tree(tree: Node, search: Node, objectives: dict[str, Node] | None) -> Node:
    """The scenario in the file: its own keys over `base`, with stand-ins for what the search decides."""
    assert isinstance(tree.value, dict) and isinstance(search.value, dict)
    own = {key: node for key, node in tree.value.items() if key not in ("search", "base", "objectives")}
    if objectives is not None:
        own["objectives"] = replace(tree.value["objectives"], value=objectives)
    assumed = graft(ASSUMED, tree.place)
    if "base" in tree.value:
        own["extends"] = tree.value["base"]
        return Node(own, tree.place)
    ends = {"duration_s", "requests"} & {*own, *_section(own.get("workload"))}
    if not ends and "trace" not in _section(own.get("workload")):
        through_a_day = "diurnal" in _section(_section(own.get("workload")).get("arrivals"))
        lasts_s = ASSUMED_DAY_S if through_a_day else ASSUMED_DURATION_S
        assumed = merge(assumed, nest(("duration_s",), graft(lasts_s, tree.place)), None)
    return merge(assumed, Node(own, tree.place), Scenario)


def _without_deployment(loaded: LoadedScenario) -> LoadedScenario:
    """The scenario with the stand-in where its base had a deployment: nothing of that is to stay."""
    assert isinstance(loaded.tree.value, dict)
    standing_in = graft(ASSUMED["deployment"], loaded.tree.place)
    kept = {key: node for key, node in loaded.tree.value.items() if key not in OPERATIONS}
    tree = replace(loaded.tree, value={**kept, "deployment": standing_in})
    scenario = loaded.scenario.model_copy(update=dict.fromkeys(OPERATIONS))
    return replace(loaded, tree=tree, scenario=scenario)


def _operated(tree: Node) -> Iterator[LocatedProblem]:
    """What the file itself says of workers that come and go, which is no part of a search."""
    assert isinstance(tree.value, dict)
    for key in OPERATIONS & tree.value.keys():
        says = "a plan chooses how many workers there are; expected in the scenario that it answers with"
        yield LocatedProblem((key,), says, tree.value[key].key or tree.value[key].place)


def _section(node: Node | None) -> dict[str, Node]:
    return node.value if node and isinstance(node.value, dict) else {}


def _objectives(
    tree: Node, problems: list[LocatedProblem]
) -> tuple[tuple[Objective, ...], dict[str, Node] | None]:
    """The promises that the file itself makes, and those of them that a scenario knows; None where it makes none."""
    path, section = find(tree, ("objectives",))
    if not path or not isinstance(section.value, dict):
        return (), None
    found: list[Objective] = []
    known = {key: Node(None, section.place, section.key) for key in _scenario_objectives()}
    for key, node in section.value.items():
        match, bound = OBJECTIVE.fullmatch(key), node.value
        if match is None:
            near = did_you_mean(key, _scenario_objectives())
            says = f"unknown objective{near}; expected ttft, tpot or e2e with a percentile or mean, as ttft_p95_s"
            problems.append(LocatedProblem(("objectives", key), says, node.key or node.place))
        elif bound is None:
            continue
        elif isinstance(bound, bool) or not isinstance(bound, int | float) or bound <= 0:
            says = f"expected seconds above 0, got {plain(node)}"
            problems.append(LocatedProblem(("objectives", key), says, node.place))
        else:
            at = None if match[2] == "mean" else float(match[2][1:])
            found.append(Objective(f"{match[1]}_s", at, float(bound)))
            if key in known:
                known[key] = node
    return tuple(found), known


def _own_objectives(scenario: Scenario) -> tuple[Objective, ...]:
    """Those of the base, where the plan has none."""
    given = scenario.objectives.model_dump(exclude_none=True)
    return tuple(Objective(key.replace("_p99", ""), 99.0, bound) for key, bound in given.items())


def _scenario_objectives() -> tuple[str, ...]:
    return tuple(schema_at(Scenario, ("objectives",)).get("properties", ()))


def _problems(search: Node) -> Iterator[LocatedProblem]:
    """Keys and values of `search` that cannot be."""
    assert isinstance(search.value, dict)
    valid = [*OWN_KEYS, *map(dotted, key_paths(Scenario))]
    for key, node in search.value.items():
        at = ("search", key)
        if key not in OWN_KEYS and not schema_at(Scenario, tuple(key.split("."))):
            says = f"no key of a search or of a scenario{did_you_mean(key, valid)}"
            yield LocatedProblem(at, says, node.key or node.place)
        elif key.endswith(".workers") or key.startswith(("workload", "objectives")) or key == "deployment":
            says = (
                "the plan finds the workers, for the workload and the objectives that stand outside `search`"
            )
            yield LocatedProblem(at, says, node.key or node.place)
        elif key.startswith("price.reserved"):
            yield LocatedProblem(at, RESERVED, node.key or node.place)
        elif isinstance(node.value, list) and not node.value and key != "exclude":
            yield LocatedProblem(at, "expected at least one value", node.shown)
        elif key == "kind" and (wrong := [k for k in _values(node) if k not in KINDS]):
            yield LocatedProblem(at, f"expected {' or '.join(KINDS)}, got {wrong[0]}", node.place)
        elif key == "ratio" and (wrong := [r for r in _values(node) if not _is_ratio(r)]):
            says = f"expected workers of prefill and decode in quotes, such as '2:1', got {wrong[0]}"
            yield LocatedProblem(at, says, node.place)
        elif key == "max_gpus" and not (type(node.value) is int and node.value > 0):
            yield LocatedProblem(at, f"expected a whole number above 0, got {plain(node)}", node.place)
        elif key == "exclude" and not all(isinstance(entry, dict) for entry in _values(node)):
            says = "expected a list of sections, such as [{gpu: b200_sxm}]"
            yield LocatedProblem(at, says, node.place)
        elif key == "gpu":
            yield from _unknown_gpus(node)


def _unknown_gpus(node: Node) -> Iterator[LocatedProblem]:
    for entry in _values(node):
        name = entry.get("gpu") if isinstance(entry, Mapping) else entry
        if not isinstance(name, str):
            says = f"expected a GPU's name, or a section with one such as {{gpu: b200_sxm}}, got {brief(str(entry))}"
            yield LocatedProblem(("search", "gpu"), says, node.place)
            continue
        try:
            if not Path(name).suffix:
                catalog.gpu(name)
        except catalog.UnknownName as unknown:
            yield LocatedProblem(("search", "gpu"), str(unknown), node.place)


def _is_ratio(text: object) -> bool:
    return isinstance(text, str) and re.fullmatch(r"[1-9]\d*:[1-9]\d*", text) is not None


def _values(node: Node) -> tuple[Any, ...]:
    value = plain(node)
    return tuple(value) if isinstance(value, list) else (value,)


def _gpu(entry: str | Mapping[str, Any]) -> str | dict[str, Any]:
    """A value of `gpu`: a name, or a section of keys that go together."""
    return _gpu_name(entry) if isinstance(entry, str) else _excluded(entry)


def _gpu_name(name: str) -> str:
    """The catalog's own name, or a file's as it is."""
    try:
        return catalog.gpu(name).name
    except catalog.UnknownName:
        return name


def _excluded(entry: Mapping[str, Any], under: str = "") -> dict[str, Any]:
    """The values to leave out by dotted key."""
    flat: dict[str, Any] = {}
    for key, value in entry.items():
        if isinstance(value, Mapping):
            flat |= _excluded(value, f"{under}{key}.")
        else:
            flat[f"{under}{key}"] = (
                _gpu_name(value) if key == "gpu" and isinstance(value, str) and not under else value
            )
    return flat
