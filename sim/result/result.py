"""The result of a run: its numbers, its per-request table, and the files that keep them."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import yaml

from sim.cluster.record import RowsNotKeptError, RunRecord
from sim.cluster.staff import by_the_clock
from sim.result.books import books
from sim.result.fleet import fleet
from sim.result.hours import by_hour, untold_hours
from sim.result.invariants import check_invariants
from sim.result.notes import chance_notes
from sim.result.objectives import judged
from sim.result.sample import widened
from sim.result.statistics import request_columns, summary
from sim.result.totals import LATENCIES
from sim.saving import whole_file, write_whole
from sim.scenario.errors import DeploymentError, brief
from sim.scenario.schema import Scenario

if TYPE_CHECKING:
    import pandas as pd

REQUESTS, HISTOGRAMS, SUMMARY, SCENARIO = (
    "requests.parquet",
    "histograms.parquet",
    "run.json",
    "scenario.yaml",
)


class Cost(Protocol):
    """What the run cost; see `sim.price`."""

    @property
    def usd_by_hour(self) -> Sequence[float]:
        """Cost of each hour of the run."""
        ...

    def json(self) -> dict[str, Any]:
        """The `cost` object of the JSON of a run."""
        ...


class Result:
    """What a run gave, priced."""

    def __init__(
        self,
        record: RunRecord,
        cost: Cost,
        notes: Sequence[str] = (),
        expected_error: dict[str, Any] | None = None,
        anchor: dict[str, Any] | None = None,
    ) -> None:
        """`notes`: sentences for the user about what was decided on the way, such as rows of a trace left out.

        `expected_error`: see `sim.result.expected_error`. `anchor`: see `sim.scenario.anchor`; in the JSON where there
        is one.
        """
        self.record = replace(record, invariants=[*record.invariants, *check_invariants(record)])
        self.notes = (*notes, *_unmeasured(record), *untold_hours(record))
        self._chance_is_told = False
        self._outlook: Callable[[], dict[str, Any]] | None = None
        self._books = known = books(self.record)
        self._json = {**summary(self.record, known, cost.json(), expected_error), "notes": list(self.notes)}
        self._json["objectives"] = {one.key: one.json() for one in judged(self._json)}
        if anchor is not None:
            self._json["anchor"] = anchor
        if by_the_clock(record.scenario):
            self._json["hours"] = by_hour(self.record, known.hour, cost.usd_by_hour)
        if record.scenario.fleet:
            self._json["fleet"] = fleet(self.record, known.good, self._json)

    def json(self) -> dict[str, Any]:
        """The JSON of the run, as documented; `wall_s` is the only value that may differ between runs of one seed."""
        if not self._chance_is_told:  # not before a sampled fleet has widened its intervals
            self._chance_is_told = True
            self._json["notes"] += chance_notes(self.record, self._json)
        if self._outlook is not None:
            outlook, self._outlook = self._outlook, None
            self._json |= self._foreseen(outlook)
        return self._json

    def _foreseen(self, outlook: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What the estimate says; nulls and a note where it cannot be made: a finished run is not lost for that."""
        try:
            found = outlook()
        except Exception as error:  # whatever is wrong with the estimate, the run is whole
            reason = brief(
                str(error) if isinstance(error, DeploymentError) else f"{type(error).__name__}: {error}"
            )
            self._json["notes"].append(f"no estimate of the capacity can be made: {reason}")
            return {"capacity": None, "limited_by": None}
        if self._json["stable"] is None:  # it ends before a load is reached
            found["capacity"]["load"] = None
        elif self._json["stable"] and (load := found["capacity"]["load"] or 0.0) > 1:
            self._json["notes"].append(
                f"no backlog was seen to grow, but the estimate has the load at {load:.0%} of capacity: "
                "near it only a longer run tells, and until then percentiles grow with its length"
            )
        return found

    def beside_half(self, half: "Result", doublings: float) -> None:
        """Let the intervals of a sampled fleet tell what the sample's size may matter; see `sim.result.sample`."""
        widened(self._json, half.json(), self._books.in_batches, half._books.in_batches, doublings)

    def without_intervals(self) -> None:
        """Of a fleet whose sample is too small to be halved."""
        for name in LATENCIES:
            self._json["latency"][name]["ci"] = None
        self._json["fleet"]["ci"] = None
        self._json["notes"].append("fleet: a sample of one replica has no intervals; simulate two or more")

    def outlook_from(self, outlook: Callable[[], dict[str, Any]]) -> None:
        """Let the JSON have a `capacity` and a `limited_by`: what `outlook` says when the JSON is first asked for."""
        self._outlook = outlook

    @cached_property
    def requests(self) -> "pd.DataFrame":
        """One row per request, in order of arrival; see `request_columns` for what is derived.

        Raises RowsNotKeptError where the scenario asks for a summary.
        """
        import pandas as pd  # noqa: PLC0415 - a third of a second that only tables need

        return pd.DataFrame(request_columns(self.record))

    @cached_property
    def histograms(self) -> "pd.DataFrame":
        """Where a summary was kept: `latency`, `from_s`, `to_s` and `requests` of every bin that holds any.

        Bins are the same in all runs, so those of several add up to what one run would have counted.
        """
        import pandas as pd  # noqa: PLC0415 - as above

        summary = self.record.summary
        bins = summary.bins() if summary is not None else ()
        return pd.DataFrame([*bins], columns=["latency", "from_s", "to_s", "requests"])

    def save(self, folder: str | Path) -> None:
        """Write `requests.parquet`, `scenario.yaml` (as applied) and `run.json` into a folder, made if need be; of a
        summary `histograms.parquet` takes the place of the first.

        Each file appears whole or not at all, and `run.json` last: where it is, the others are. The table of an earlier
        result of the other kind goes after that.
        """
        folder, data = Path(folder), self.json()
        scenario = yaml.safe_dump(data["scenario"], sort_keys=False, allow_unicode=True)
        text = json.dumps(data, indent=2, allow_nan=False) + "\n"
        rows = self.record.summary is None
        name, table = (REQUESTS, self.requests) if rows else (HISTOGRAMS, self.histograms)
        with whole_file(folder / name) as file:
            table.to_parquet(file, index=False)
        write_whole(folder / SCENARIO, scenario)
        write_whole(folder / SUMMARY, text)
        (folder / (HISTOGRAMS if rows else REQUESTS)).unlink(
            missing_ok=True
        )  # an earlier result needed it until now


@dataclass(frozen=True)
class SavedResult:
    """A result read back from its folder."""

    scenario: Scenario
    data: dict[str, Any]
    _table: "pd.DataFrame"

    @property
    def requests(self) -> "pd.DataFrame":
        """See `Result.requests`."""
        if self.scenario.metrics == "summary":
            raise RowsNotKeptError("`metrics: summary` keeps no rows of requests; `metrics: rows` does")
        return self._table

    @property
    def histograms(self) -> "pd.DataFrame":
        """See `Result.histograms`."""
        return self._table.iloc[:0] if self.scenario.metrics == "rows" else self._table

    def json(self) -> dict[str, Any]:
        """The JSON of the run."""
        return self.data


def load(folder: str | Path) -> SavedResult:
    """The result that `Result.save` left in a folder.

    Raises:
        FileNotFoundError: if one of its files is missing.
        ValueError: if one of them is not what `save` wrote.
    """
    import pandas as pd  # noqa: PLC0415 - as above

    folder = Path(folder)
    data = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
    scenario = Scenario.model_validate(yaml.safe_load((folder / SCENARIO).read_text(encoding="utf-8")))
    name = REQUESTS if scenario.metrics == "rows" else HISTOGRAMS
    return SavedResult(scenario, data, pd.read_parquet(folder / name))


def _unmeasured(record: RunRecord) -> Iterator[str]:
    """Says so where the warm-up left nothing to measure."""
    requests = record.requests if record.summary is None else record.summary
    warmup_s, (_, last_s) = record.window_s[0], requests.arrivals_s() or (0.0, 0.0)
    if warmup_s > last_s:
        yield f"nothing was measured: the last request came at {last_s:,.1f} s, in the warm-up of {warmup_s:,.1f} s"
