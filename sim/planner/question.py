"""A plan file -> the question: a scenario without a deployment, what is promised, and what may be varied.

A plan file holds `search`, and a scenario around it: written in the file itself, taken from `base`, or both, the file's
own keys on top. Its deployment is what is looked for.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from sim.planner.search_section import (
    KINDS,
    OWN_KEYS,
    RESERVED,
    excluded,
    gpu_setting,
    listed,
    search_problems,
)
from sim.scenario.errors import LocatedProblem, Problem, ScenarioError, did_you_mean
from sim.scenario.form import schema_at
from sim.scenario.loading import LoadedScenario, apply, from_tree, settings
from sim.scenario.reader import read, read_file
from sim.scenario.schema import Scenario
from sim.scenario.tree import Node, find, graft, merge, nest, plain

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
    left_out: tuple[str, ...] = ()
    """Sentences about what stands in the file and is no part of a plan."""
    margin: bool = True
    """Whether the plan is to hold where the service is slower by the expected error."""

    def scenario(self, overrides: Mapping[str, object]) -> Scenario:
        """The scenario with dotted keys laid over it. Raises ScenarioError."""
        return apply(self.loaded, overrides).scenario


def load_question(path: str | Path, overrides: Sequence[str] = ()) -> Question:
    """The question in a plan file, with overrides `key.path=value` on top, such as `search.KEY=value`; relative names
    in it start from its folder.

    Raises ScenarioError with every problem found: file, line, column, key and what was expected.
    """
    tree = read(read_file(Path(path), str(path)), str(path))
    if not isinstance(tree.value, dict):
        raise ScenarioError(
            [LocatedProblem((), "expected a section with `search` and a scenario", tree.place)]
        )
    over = settings(overrides)
    tree, promised = _overridden(tree, over)
    search = _unset(_section(tree).get("search", Node({}, tree.place)))
    if not isinstance(search.value, dict):
        raise ScenarioError([LocatedProblem(("search",), "expected a section", search.place)])
    problems = [*search_problems(search), *_operated(tree)]
    objectives, known = _objectives(tree, problems)
    more, _ = _objectives(promised, problems)
    try:
        loaded = _without_deployment(from_tree(_scenario_tree(tree, search, known)))
    except ScenarioError as error:
        raise ScenarioError([*problems, *error.problems]) from None
    if problems:
        raise ScenarioError(problems)
    if loaded.scenario.price.reserved is not None:
        raise loaded.located([Problem(("price", "reserved"), RESERVED)])
    objectives = objectives or _own_objectives(loaded.scenario)
    if _section(promised):
        loaded, objectives = _with_promises(loaded, objectives, promised, more)
    if not objectives:
        says = "expected `objectives`, such as {ttft_p99_s: 2.0, tpot_p99_s: 0.05}: without a promise one GPU will do"
        raise ScenarioError([LocatedProblem((), says, tree.place)])
    lists = {key: listed(node) for key, node in search.value.items() if key not in OWN_KEYS}
    own = {key: listed(search.value[key]) for key in OWN_KEYS if key in search.value}
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
            "gpu": tuple(gpu_setting(entry) for entry in own.get("gpu", (loaded.scenario.gpu,))),
            **{key: values for key, values in lists.items() if not key.startswith("deployment.")},
        },
        pinned=pools,
        kinds=tuple(own.get("kind", KINDS)),
        ratios=tuple(own["ratio"]) if "ratio" in own else None,
        max_gpus=own["max_gpus"][0] if "max_gpus" in own else None,
        exclude=tuple(excluded(entry) for entry in own.get("exclude", ())),
        left_out=(*_left_out(tree), *_other_gpu(loaded, over)),
    )


def _overridden(tree: Node, leaves: Mapping[str, Node]) -> tuple[Node, Node]:
    """The file with overrides on top, and the overrides of objectives: they change one promise, of the file or of its
    base, where the file's own take the place of all of the base's."""
    problems = [
        LocatedProblem((), "is named in the plan file itself", leaf.place)
        for key, leaf in leaves.items()
        if key.split(".")[0] in ("base", "extends")
    ]
    if problems:
        raise ScenarioError(problems)
    over, promised = Node({}, tree.place), Node({}, tree.place)
    for key, leaf in leaves.items():
        section, _, rest = key.partition(".")
        path = (section, rest) if section == "search" and rest else tuple(key.split("."))
        if section == "objectives":
            promised = merge(promised, nest(path, leaf), None)
        else:
            over = merge(over, nest(path, leaf), None)
    return replace(merge(tree, over, Scenario), place=tree.place), promised


def _with_promises(
    loaded: LoadedScenario, objectives: tuple[Objective, ...], promised: Node, more: tuple[Objective, ...]
) -> tuple[LoadedScenario, tuple[Objective, ...]]:
    """The scenario and its promises with those of overrides on top; null takes one away, or all."""
    section = _section(promised)["objectives"]
    given = _section(section) or {o.key: section for o in objectives}
    merged = {o.key: o for o in objectives if o.key not in given} | {o.key: o for o in more}
    known = {f"objectives.{key}": node for key, node in given.items() if key in scenario_objectives()}
    return apply(loaded, known), tuple(merged.values())


def _left_out(tree: Node) -> Iterator[str]:
    """What stands in the file and is no part of a plan, with what comes nearest to it."""
    pools = _section(_section(tree).get("deployment"))
    if not pools:
        return
    pins = [
        f"deployment.{role}.{key}: [{json.dumps(plain(node))}]"
        for role, pool in pools.items()
        for key, node in _section(pool).items()
        if key != "workers" and not isinstance(node.value, dict | list | None)
    ]
    keep = f"; to keep its workers as they are: search: {{{', '.join(pins)}}}" if pins else ""
    yield f"deployment: left out, as a plan looks for one{keep}"


def _other_gpu(loaded: LoadedScenario, over: Mapping[str, Node]) -> Iterator[str]:
    """A GPU in an override, and a price that was given for those of the file."""
    usd = loaded.scenario.price.usd_per_gpu_hour
    if usd is not None and {"gpu", "search.gpu"} & over.keys() and "price.usd_per_gpu_hour" not in over:
        yield f"price.usd_per_gpu_hour: ${usd:,.2f} of the file stands for the GPUs of --set, too"


def _scenario_tree(tree: Node, search: Node, objectives: dict[str, Node] | None) -> Node:
    """The scenario in the file: its own keys over `base`, with stand-ins for what the search decides."""
    assert isinstance(tree.value, dict) and isinstance(search.value, dict)
    apart = {"search", "base", "objectives", *OPERATIONS}
    own = {key: node for key, node in tree.value.items() if key not in apart}
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


def _unset(search: Node) -> Node:
    """The section without the keys that are null: they are as if they were not there. A list may have a null."""
    if not isinstance(search.value, dict):
        return search
    return replace(search, value={key: node for key, node in search.value.items() if node.value is not None})


def _section(node: Node | None) -> dict[str, Node]:
    return node.value if node and isinstance(node.value, dict) else {}


def _objectives(
    tree: Node, problems: list[LocatedProblem]
) -> tuple[tuple[Objective, ...], dict[str, Node] | None]:
    """The promises that the file itself makes, and those of them that a scenario knows; None where it makes none."""
    path, section = find(tree, ("objectives",))
    if not path or section.value is None:
        return (), None
    if not isinstance(section.value, dict):
        problems.append(LocatedProblem(path, "expected a section", section.place))
        return (), None
    found: list[Objective] = []
    known = {key: Node(None, section.place, section.key) for key in scenario_objectives()}
    for key, node in section.value.items():
        match, bound = OBJECTIVE.fullmatch(key), node.value
        if match is None:
            near = did_you_mean(key, scenario_objectives())
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


def scenario_objectives() -> tuple[str, ...]:
    """The objectives that a scenario may have."""
    return tuple(schema_at(Scenario, ("objectives",)).get("properties", ()))
