"""A published case: a scenario file whose `published` says what was measured of it, and `case` how that is compared.

    case: {id: ..., layout: ..., point: ..., step: {phase: decode, batch: 32, context: 4096}}   # or day; neither: a run
    published:
      - {metric: tpot, value: 0.009, unit: s, source: ..., date: 2025-12, quality: measured, band: 0.15, why: ...}

The scenario is read as any other: `tokenworks run` takes the same file.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, model_validator

from sim.scenario.errors import LocatedProblem, Problem, ScenarioError, did_you_mean
from sim.scenario.form import check
from sim.scenario.loading import from_tree
from sim.scenario.reader import read, read_file
from sim.scenario.schema import Scenario
from sim.scenario.section import (
    Flag,
    Fraction,
    PositiveFloat,
    PositiveInt,
    Section,
    SequenceCount,
    TokenCount,
)
from sim.scenario.tree import Node, find
from sim.validation.case import BOUND, Band

PARTS: Final = ("case", "published")
METRICS: Final = {
    "step": ("tpot", "bound_tpot", "decode_tput_per_node", "prefill_tput_per_node"),
    "day": (
        "input_tokens",
        "output_tokens",
        "tokens_per_s_per_user",
        "input_tokens_per_s_per_prefill_node",
        "output_tokens_per_s_per_decode_node",
        "usd_per_day",
        "bound_input_tokens_per_s_per_prefill_node",
        "bound_output_tokens_per_s_per_decode_node",
    ),
    "run": ("tpot", "ttft", "output_tput_per_gpu", "total_tput_per_gpu"),
}
"""What each kind of case can say: seconds, tokens per second, tokens, USD."""
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Words = Annotated[str, Field(min_length=1)]


class Figure(Section):
    """One published number."""

    metric: Words = Field(description="what it is, in the names of `validate --json`")
    value: Positive = Field(description="in `unit`")
    unit: Words = Field(description="of the value, such as s, token/s, USD")
    statistic: Literal["mean", "p50"] = Field(default="mean", description="of times, over requests")
    source: Words = Field(description="where it is printed")
    date: Words = Field(description="when it was measured or published, in quotes")
    quality: Literal["measured", "derived", "digitised", "estimated", "theoretical"] = Field(
        description="how good it is"
    )
    band: Positive | None = Field(
        default=None, description="largest error that is expected, as a share of the value; not for a limit"
    )
    lies: Literal["above", "below"] | None = Field(
        default=None, description="for a limit: on which side of it the simulation must lie"
    )
    why: Words = Field(description="why the band is as wide as it is, or what the limit leaves out")
    missed: str = Field(default="", description="why the simulation lies outside today; empty: it does not")

    def within(self) -> Band:
        """Least and most that a simulation may say."""
        if self.band is not None:
            return self.value * (1 - self.band), self.value * (1 + self.band)
        return (self.value, None) if self.lies == "above" else (None, self.value)

    @model_validator(mode="after")
    def _one_kind(self) -> "Figure":
        wanted, other = ("lies", "band") if self.metric.startswith(BOUND) else ("band", "lies")
        if getattr(self, wanted) is None or getattr(self, other) is not None:
            raise ValueError(f"expected `{wanted}`, not `{other}`: the names of limits begin with {BOUND}")
        return self


class PublishedStep(Section):
    """A single step of one phase at a fixed load."""

    phase: Literal["prefill", "decode"] = Field(description="prefill or decode")
    batch: SequenceCount = Field(description="sequences (decode) or new tokens (prefill) per rank")
    context: TokenCount = Field(description="KV tokens of a sequence (decode), tokens of a prompt (prefill)")


class NodesFrom(Section):
    """A step of a schedule."""

    at: Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")] = Field(description="time of day: 03:30")
    nodes: PositiveInt = Field(description="nodes in service from then on")


class UnitCounts(Section):
    """Deployment units (workers) of each pool."""

    prefill: PositiveInt = Field(description="units that compute prompts")
    decode: PositiveInt = Field(description="units that generate tokens")


class PublishedDay(Section):
    """A service whose nodes and load follow the hours of a day; one unit of each pool stands for all."""

    starts_at: Annotated[int, Field(ge=0, le=23)] = Field(description="first hour of the 24")
    input_tokens: Positive = Field(description="prompt tokens of the day, cached ones included")
    output_tokens: Positive = Field(description="generated tokens of the day")
    load: Annotated[tuple[Positive, ...], Field(min_length=24, max_length=24)] = Field(
        description="tokens of each hour of the clock, from 00:00 on, in any unit"
    )
    nodes: Annotated[tuple[NodesFrom, ...], Field(min_length=1)] = Field(
        description="the schedule of nodes, from 00:00 on"
    )
    least_units: UnitCounts = Field(description="units of each pool at the smallest number of nodes")
    step_units: UnitCounts = Field(description="units of each pool that join or leave at a time")
    least_tokens_per_s: PositiveFloat = Field(description="that the fewest nodes must keep up for a user")
    in_flight_per_gpu: Annotated[tuple[SequenceCount, ...], Field(min_length=2)] = Field(
        description="requests in flight per decode GPU at the simulated points; the last: as many as fit"
    )
    acceptance: tuple[Fraction, Fraction] | None = Field(
        default=None, description="ends of the published range of accepted drafts, for `simulated_range`"
    )
    seeds: Annotated[int, Field(ge=2)] = Field(description="runs of every point, for the interval")


class Head(Section):
    """What a case is called, and what is simulated: a step, a day, or else a run of the whole scenario."""

    id: Words = Field(description="unlike every other case's")
    layout: Words = Field(description="deployment in words")
    point: Words = Field(description="lengths and load in words")
    step: PublishedStep | None = Field(default=None, description="one step at a fixed load")
    day: PublishedDay | None = Field(default=None, description="the hours of a day")
    quick: Flag = Field(default=False, description="whether it takes a second or two, so that tests run it")
    note: str = Field(default="", description="what of the scenario is published, and what is an assumption")

    @property
    def kind(self) -> str:
        """Key of `METRICS`."""
        return "step" if self.step else "day" if self.day else "run"


class _Form(Section):
    case: Head = Field(description="id, layout, load, and what is simulated")
    published: Annotated[tuple[Figure, ...], Field(min_length=1)] = Field(description="what was measured")


@dataclass(frozen=True)
class CaseFile:
    """A file, read and checked in form."""

    path: Path
    head: Head
    published: Sequence[Figure]
    scenario: Scenario


def read_case(path: Path) -> CaseFile:
    """The case in a file. Raises ScenarioError with every place where it is wrong."""
    tree = read(read_file(path, str(path)), str(path))
    keys = tree.value if isinstance(tree.value, dict) else {}
    form = check(Node({key: child for key, child in keys.items() if key in PARTS}, tree.place), _Form)
    scenario = from_tree(tree).scenario
    problems = [*_strange_metrics(form), *_unfit(form.case, scenario)]
    if problems:
        raise ScenarioError(LocatedProblem(p.path, p.message, find(tree, p.path)[1].shown) for p in problems)
    return CaseFile(path, form.case, form.published, scenario)


def _strange_metrics(form: _Form) -> Iterator[Problem]:
    kind = form.case.kind
    known = METRICS[kind]
    for index, figure in enumerate(form.published):
        if figure.metric not in known:
            meant = did_you_mean(figure.metric, known)
            says = f"a {kind} has no metric '{figure.metric}'{meant}; expected one of {', '.join(known)}"
            yield Problem(("published", index, "metric"), says)


def _unfit(head: Head, scenario: Scenario) -> Iterator[Problem]:
    """What the kind of case needs of its scenario."""
    workload, lengths = scenario.workload, scenario.workload.lengths
    if head.kind == "run" and workload.requests is None:
        yield Problem(("workload",), "a published run needs `requests`: how many its benchmark sent")
    if head.day is None:
        return
    if scenario.deployment.serve:
        yield Problem(("deployment",), "a day needs `prefill` and `decode`: a unit of each stands for all")
    if not (lengths and lengths.input.constant and lengths.output.constant):
        yield Problem(("workload",), "a day needs lengths that are `constant`: the published averages")
    points = head.day.in_flight_per_gpu
    if list(points) != sorted(set(points)):
        yield Problem(("case", "day", "in_flight_per_gpu"), "expected ascending numbers")
