"""A sweep file -> its points: every combination of `grid`, then each entry of `cases`, on top of a base scenario."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import Field

from sim.planner.one_price import GIVEN, one_price
from sim.scenario.errors import LocatedProblem, ScenarioError, did_you_mean, dotted
from sim.scenario.form import check, key_paths, schema_at
from sim.scenario.loading import LoadedScenario, apply, load, settings
from sim.scenario.other_gpu import price_of_another_gpu
from sim.scenario.reader import read, read_file
from sim.scenario.schema import Scenario
from sim.scenario.section import FileName, Section
from sim.scenario.tree import Node, find, plain

MOST_POINTS: Final = 1_000_000
"""A grid beyond it is a slip: even at ten points a second it would take a day."""


class SweepFile(Section):
    """What a user writes: a base, and what is varied."""

    base: FileName = Field(description="the scenario that every point starts from")
    grid: dict[str, tuple[Any, ...]] = Field(
        default={}, description="scenario keys and their values; every combination is a point"
    )
    cases: tuple[dict[str, Any], ...] = Field(
        default=(), description="scenario keys with one value each; every entry is a point"
    )


@dataclass(frozen=True)
class Point:
    """One run of a sweep. `overrides` keep the places where they are written."""

    number: int
    overrides: Mapping[str, Node]

    @property
    def values(self) -> dict[str, Any]:
        """The overrides as plain data."""
        return {key: plain(node) for key, node in self.overrides.items()}


@dataclass(frozen=True)
class Sweep:
    """A sweep file, read."""

    base: LoadedScenario
    points: tuple[Point, ...]

    def scenario(self, point: Point) -> Scenario:
        """The scenario of a point, checked in its form. Raises ScenarioError."""
        return apply(self.base, point.overrides).scenario


def load_sweep(path: str | Path, overrides: Sequence[str] = ()) -> Sweep:
    """The sweep in a file, with overrides `key.path=value` of its base; relative names in it start from its folder.

    Raises ScenarioError: the file is no sweep, its base is no scenario, or a key is none of a scenario's. Whether the
    values suit the keys is each point's own matter.
    """
    tree = read(read_file(Path(path), str(path)), str(path))
    file = check(tree, SweepFile)
    problems = [*_unknown_keys(tree), *_varied_and_set(file, overrides)]
    if not (file.grid or file.cases):
        problems.append(LocatedProblem((), "expected `grid`, `cases` or both: nothing is varied", tree.place))
    if (many := math.prod(map(len, file.grid.values()))) > MOST_POINTS:
        problems.append(
            LocatedProblem(("grid",), f"{many:,} combinations; expected at most {MOST_POINTS:,}", tree.place)
        )
    problems += [
        LocatedProblem(("grid", key), "expected at least one value", find(tree, ("grid", key))[1].shown)
        for key, values in file.grid.items()
        if not values
    ]
    if problems:
        raise ScenarioError(problems)
    name = Path(path).parent / file.base
    try:
        base = load(name, overrides, piped=False)
    except ScenarioError as error:
        if not any(p.file == str(name) and p.line is None for p in error.problems):
            raise
        says = "; ".join(f"{p.file}: {p.message}" for p in error.problems)  # the file as a whole
        raise ScenarioError([LocatedProblem(("base",), says, find(tree, ("base",))[1].place)]) from None
    return Sweep(base, tuple(Point(i, overrides) for i, overrides in enumerate(_overrides(tree))))


def notes(sweep: Sweep) -> Iterator[str]:
    """What may not be meant: one price for points of several GPUs."""
    own = ("price", *(f"price.{key}" for key in (*GIVEN, "tier")))
    base = sweep.base.scenario
    gpus = [
        str(p.values.get("gpu", base.gpu)) for p in sweep.points if not any(key in p.values for key in own)
    ]
    instead = "to give each its own: cases: [{gpu: NAME, price.usd_per_gpu_hour: USD}, ...]"
    yield from one_price(gpus, base.price, instead)
    if not any("gpu" in point.overrides for point in sweep.points):
        yield from price_of_another_gpu(sweep.base)


def _overrides(tree: Node) -> Iterator[dict[str, Node]]:
    grid = _section(tree, "grid")
    if grid:
        lists = [node.value for node in grid.values() if isinstance(node.value, list)]
        for values in itertools.product(*lists):
            yield dict(zip(grid, values, strict=True))
    for case in _list(tree, "cases"):
        yield dict(case.value) if isinstance(case.value, dict) else {}


def _section(tree: Node, key: str) -> dict[str, Node]:
    path, node = find(tree, (key,))
    return dict(node.value) if path and isinstance(node.value, dict) else {}


def _list(tree: Node, key: str) -> list[Node]:
    path, node = find(tree, (key,))
    return node.value if path and isinstance(node.value, list) else []


def _varied_and_set(file: SweepFile, overrides: Sequence[str]) -> Iterator[LocatedProblem]:
    """Overrides that every point would put another value in the place of."""
    for key, leaf in settings(overrides).items():
        if key in file.grid or (not file.grid and file.cases and all(key in case for case in file.cases)):
            yield LocatedProblem((), "every point has a value of its own of it", leaf.place)


def _unknown_keys(tree: Node) -> Iterator[LocatedProblem]:
    cases = [(f"cases.{i}", case.value) for i, case in enumerate(_list(tree, "cases"))]
    for where, section in (("grid", _section(tree, "grid")), *cases):
        for key, node in section.items() if isinstance(section, dict) else ():
            if not schema_at(Scenario, tuple(key.split("."))):
                near = did_you_mean(key, map(dotted, key_paths(Scenario)))
                yield LocatedProblem((where, key), f"no key of a scenario{near}", node.key or node.place)
