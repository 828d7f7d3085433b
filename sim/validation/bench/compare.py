"""A user's benchmark beside its simulation: every metric that both have, and why some differ by what they mean."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sim import catalog
from sim.catalog import UnknownName
from sim.deployment.plan import Deployment, resolve
from sim.scenario.errors import DeploymentError, ScenarioError
from sim.scenario.schema import Scenario
from sim.simulation import simulate
from sim.validation.bench.repeat import printed, repeated
from sim.validation.bench.run import BenchError, BenchRun, Figures, formats, little
from sim.validation.case import Case, described
from sim.validation.errors import by_metric
from sim.validation.rows import Published, catalog_model
from sim.validation.runs import Benchmark, Progress, Trial

LATENCIES: Final = ("ttft", "tpot", "itl", "e2e")
METRICS: Final = (*LATENCIES, "requests_per_s", "output_tokens_per_s", "total_tokens_per_s")
STATISTICS: Final = ("mean", "p50", "p90", "p95", "p99", "rate")
IN_FLIGHT: Final = (0.6, 1.1)
"""Requests in flight by Little's law over those asked for: fewer while a run begins and ends, never more."""
AT_ONCE_IN_FLIGHT: Final = 0.25
"""The same share where all are sent at once: half, if answers end evenly over the run; less only if a few last long."""
LOOKED_AT: Final = ("p50", "mean")
"""Statistics of a latency that an anchor takes, the first one that was measured."""


@dataclass(frozen=True, slots=True)
class Compared:
    """One figure beside its simulation."""

    case: Case
    statistic: str

    def json(self) -> dict[str, Any]:
        """Every column."""
        return {**self.case.json(), "statistic": self.statistic}


@dataclass(frozen=True, slots=True)
class Left:
    """A figure that the simulation does not have, and why."""

    id: str
    metric: str
    statistic: str
    measured: float
    why: str


@dataclass(frozen=True)
class Repeated:
    """A run with the scenario that repeats it, and what came of it."""

    run: BenchRun
    scenario: Scenario
    figures: Figures
    notes: tuple[str, ...]
    gpus: int

    def cases(self) -> Iterator[Compared]:
        """Every figure that both have."""
        for metric in METRICS:
            statistics = self.run.measured.get(metric, {})
            for statistic in STATISTICS:
                found = self.figures.get(metric, {}).get(statistic)
                if statistic in statistics and found:
                    yield Compared(self._case(metric, statistics[statistic], found), statistic)

    def left(self) -> Iterator[Left]:
        """The others that were measured."""
        why = formats()["why"]
        for metric, statistics in self.run.measured.items():
            for statistic, value in statistics.items():
                if not self.figures.get(metric, {}).get(statistic):
                    reason = why["gaps"] if metric == "itl" else why["unsimulated"]
                    yield Left(self.run.id, metric, statistic, value, reason)

    def benchmark(self, seed: int) -> Benchmark:
        """The point that an anchor is made from. Raises BenchError where another model was measured."""
        for mismatch in _mismatch(self.run, resolve(self.scenario)):
            raise BenchError(f"{self.run.id}: {mismatch}; an anchor is made of the model that was measured")
        published = {}
        for metric in ("ttft", "tpot"):
            told = self.run.measured.get(metric, {})
            statistic = next((s for s in LOOKED_AT if s in told), None)
            if statistic:
                published[metric] = Published(told[statistic], statistic)
        total = self.run.measured.get("total_tokens_per_s")
        if total:
            published["total_tput_per_gpu"] = Published(total["rate"] / self.gpus, "rate")
        columns = {"id": self.run.id, "point": self.run.load_in_words()}
        flight, count = self.run.in_flight, self.scenario.workload.requests or self.run.requests
        trial = Trial(self.scenario, seed, flight or 0, self.run.requests if flight else count)
        return Benchmark(columns, published, [trial])

    def json(self) -> dict[str, Any]:
        """What was repeated."""
        return {
            "id": self.run.id,
            "tool": self.run.about["name"],
            "model": self.run.model or None,
            "load": self.run.load_in_words(),
            "lengths": self.run.lengths.in_words(),
            "requests": self.run.requests,
            "gpus": self.gpus,
            "notes": list(self.notes),
            "scenario": self._applied(),
        }

    def _applied(self) -> dict[str, Any]:
        """The scenario; a trace of single requests without its folder, which may be gone."""
        data = self.scenario.model_dump(mode="json", exclude_none=True)
        if self.run.lengths.each is not None:
            data["workload"]["trace"] = Path(data["workload"]["trace"]).name
        return data

    def _case(self, metric: str, measured: float, found: float) -> Case:
        pools = self.scenario.deployment.pools()
        layout = " + ".join(f"{p.workers} x {p.gpus} GPUs TP{p.tp} EP{p.ep}" for p in pools.values())
        return Case(
            id=self.run.id,
            metric=metric,
            published=measured,
            simulated=found,
            layout=layout,
            point=self.run.load_in_words(),
            source=self.run.about["name"],
            note=self._why(metric),
            **described(self.scenario, "service"),
        )

    def _why(self, metric: str) -> str:
        """Why the figure may differ by definition; empty where it does not."""
        why, about = formats()["why"], self.run.about
        if metric == "itl":
            return str(why[f"itl_{about['itl']}"])
        if metric == "tpot" and self.run.tool in ("genai-perf", "aiperf"):
            return str(why["itl_is_tpot"])
        return ""


@dataclass(frozen=True)
class Comparison:
    """All runs of a user's benchmark."""

    runs: Sequence[Repeated]

    @property
    def cases(self) -> list[Compared]:
        """Of every run."""
        return [case for one in self.runs for case in one.cases()]

    @property
    def left(self) -> list[Left]:
        """Figures that are not compared, of every run."""
        return [one for run in self.runs for one in run.left()]

    def json(self) -> dict[str, Any]:
        """The names of a validation, and what was repeated."""
        cases = [one.case for one in self.cases]
        left = [
            {name: getattr(one, name) for name in ("id", "metric", "statistic", "measured", "why")}
            for one in self.left
        ]
        return {
            "cases": [one.json() for one in self.cases],
            "median_abs_error": by_metric(cases, lambda score: score.median),
            "p90_abs_error": by_metric(cases, lambda score: score.p90),
            "skipped": [],
            "not_compared": left,
            "bench": [one.json() for one in self.runs],
        }


def compare(
    runs: Sequence[BenchRun],
    scenario: Scenario | None,
    folder: Path,
    max_prompts: int = 2000,
    seed: int = 0,
    progress: Progress | None = None,
) -> Comparison:
    """Repeat every run on the scenario's deployment (None: that of the file). Traces of single requests go to `folder`.

    Raises BenchError where a run cannot be repeated.
    """
    found = []
    for done, run in enumerate(runs, start=1):
        try:
            found.append(simulated(run, scenario, folder, max_prompts, seed))
        except (DeploymentError, ScenarioError) as error:
            raise BenchError(f"{run.id}: cannot be simulated: {error}") from None
        if progress:
            progress(done, len(runs))
    return Comparison(found)


def simulated(
    run: BenchRun, scenario: Scenario | None, folder: Path, max_prompts: int = 2000, seed: int = 0
) -> Repeated:
    """One run, repeated."""
    mine = repeated(run, scenario, folder, max_prompts)
    deployment = resolve(mine)
    result = simulate(mine, seed)
    if result.record.requests.rejected.any():
        raise BenchError(f"{run.id}: requests are too long for the deployment: {'; '.join(result.notes)}")
    own = f"{mine.workload.trace}:"  # what the run's requests were read as is said already
    told = [note for note in result.notes if not note.startswith(own)]
    notes = [*run.notes, *_mismatch(run, deployment), *_contradiction(run), *told]
    count = len(result.requests)
    if count < run.requests:
        notes.append(f"the first {count:,} of {run.requests:,} requests are simulated (--max-prompts)")
    figures = printed(result, run)
    pieces = _tokens_of_a_piece(run)
    if pieces > 1.5 and not mine.speculation.draft_tokens:
        notes.append(
            f"pieces of an answer hold about {pieces:.1f} tokens, since ITL is so many times TPOT: a streaming "
            "interval, or drafts, which this scenario has not"
        )
    return Repeated(run, mine, figures, tuple(dict.fromkeys(notes)), deployment.gpus)


def _tokens_of_a_piece(run: BenchRun) -> float:
    itl, tpot = (run.measured.get(name, {}).get("mean") for name in ("itl", "tpot"))
    return itl / tpot if itl and tpot else 1.0


def _contradiction(run: BenchRun) -> Iterator[str]:
    """Says so where rate, times and concurrency do not belong together: nothing that is right meets all three."""
    found = little(run.measured)
    least, most = IN_FLIGHT
    if found and run.in_flight and not least <= found / run.in_flight <= most:
        yield (
            f"the file contradicts itself: by Little's law {found:.1f} requests were in flight, of {run.in_flight}; "
            "an anchor made from it is of little use"
        )
    elif found and run.sent_at_once and found < AT_ONCE_IN_FLIGHT * run.requests:
        yield (
            f"the file says that all {run.requests:,} requests were sent at once, and is simulated so; but its rate, "
            f"TTFT and TPOT contradict that by far: by Little's law {found:.1f} were in flight on average. Was there a "
            "bound, or a rate, that it does not tell? With it in the file (max_concurrency or request_rate) that is "
            "simulated; an anchor made from it as it is is of little use"
        )


def _mismatch(run: BenchRun, deployment: Deployment) -> Iterator[str]:
    """Says so where the client names another model of the catalog than the one that is simulated."""
    if not run.model:
        return
    try:
        measured = catalog.model(catalog_model(run.model)).name
    except (UnknownName, catalog.ConfigError, ValueError):
        return
    if measured != deployment.model.name:
        yield f"measured is {run.model}, simulated {deployment.model.name}: another model"
