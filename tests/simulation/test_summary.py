"""`metrics: summary` against rows: every figure of the JSON, over random services and workloads."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import sim
import sim.cluster.ledger as ledger_module
from sim.cluster.record import RowsNotKeptError
from sim.result.histogram import WIDTH
from sim.scenario.errors import DeploymentError

BOUND = 0.005
SAME = 1e-5
"""Of sums, whose order differs, and means, which are to the nanosecond."""

BASE: dict[str, Any] = {"model": "deepseek-v3", "gpu": "h200_sxm", "profile": "analytic"}
SERVE = {"serve": {"gpus": 8, "tp": 8, "max_batch_per_gpu": 8}}
APART = {"prefill": {"gpus": 8, "ep": 8}, "decode": {"gpus": 16, "ep": 16, "max_batch_per_gpu": 4}}
OBJECTIVES = {"ttft_p99_s": 0.3, "tpot_p99_s": 0.03}


@st.composite
def scenarios(draw: st.DrawFn) -> dict[str, Any]:
    """Open and closed loops, light and overloaded, with what changes a run's figures beside."""
    requests = draw(st.sampled_from([1, 7, 300, 1500]))
    apart, rate = draw(st.booleans()), draw(st.sampled_from([3.0, 12.0, 60.0]))
    arrivals = draw(
        st.sampled_from(
            [
                {"poisson": {"rate_per_s": rate}},
                {"gamma": {"rate_per_s": rate, "cv": 3.0}},
                {"closed_loop": {"concurrency": 20}},
                {"all_at_once": {}},
                {"diurnal": {"mean_rate_per_s": 0.15, "curve": "deepseek-24h"}},
            ]
        )
    )
    output = draw(
        st.sampled_from([{"constant": 1}, {"uniform": [1, 40]}, {"lognormal": {"mean": 60, "cv": 1.5}}])
    )
    workload: dict[str, Any] = {
        "arrivals": arrivals,
        "lengths": {"input": {"lognormal": {"mean": 900, "cv": 2.0}}, "output": output},
        "requests": requests,
    }
    found: dict[str, Any] = {**BASE, "deployment": APART if apart else SERVE, "workload": workload}
    if draw(st.booleans()):
        workload["cached_fraction"] = 0.4
    if draw(st.booleans()):
        found["warmup_s"] = draw(st.sampled_from([2.0, 30.0]))
    if draw(st.booleans()):
        found["objectives"] = OBJECTIVES
    if draw(st.booleans()):
        found["speculation"] = {"draft_tokens": 2}
    beside = draw(st.sampled_from([None, None, "failures", "fleet"]))
    if beside == "failures" and requests < 1500:
        found["failures"] = {"per_gpu_hour": 1.0, "detect_s": 2, "restart_s": 5, "repair_h": 0.01}
    if beside == "fleet" and "diurnal" not in arrivals and "closed_loop" not in arrivals:
        found["fleet"] = {"replicas": 4, "simulated": 2}
    return found


def flat(of: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves by dotted name."""
    if isinstance(of, Mapping):
        for key, value in of.items():
            yield from flat(value, f"{name}.{key}")
    elif isinstance(of, list):
        for place, value in enumerate(of):
            yield from flat(value, f"{name}.{place}")
    else:
        yield name, of


def figures(scenario: dict[str, Any], metrics: str, seed: int) -> dict[str, Any]:
    told = sim.simulate({**scenario, "metrics": metrics}, seed).json()
    skipped = ("scenario", "wall_s", "version", "notes", "objectives")  # these are p99s again
    return dict(flat({name: value for name, value in told.items() if name not in skipped}))


@settings(deadline=None, max_examples=40)
@given(scenarios(), st.integers(0, 99))
def test_every_figure_is_that_of_the_rows(scenario: dict[str, Any], seed: int) -> None:
    folded = ledger_module.FOLDED
    ledger_module.FOLDED = 64  # many parts, of few requests
    try:
        rows, summary = (figures(scenario, metrics, seed) for metrics in ("rows", "summary"))
    except DeploymentError:
        assume(False)  # it leaves nothing to measure
    finally:
        ledger_module.FOLDED = folded
    told_alike(rows, summary)


def told_alike(rows: dict[str, Any], summary: dict[str, Any]) -> None:
    """Counts are equal, sums but for the last digits, percentiles within a bin of the histogram."""
    assert rows.keys() == summary.keys()
    for name, value in rows.items():
        if ".ci." in name:  # batches of other requests; `test_histograms` bounds them
            assert (value is None) == (summary[name] is None), name
        elif not isinstance(value, float):
            assert summary[name] == value, name
        else:
            percentile = name.split(".")[-1] in ("p50", "p90", "p99")
            within = min(BOUND, WIDTH * 1.001) if percentile else SAME
            assert summary[name] == pytest.approx(value, rel=within, abs=2e-9 if value else 0.0), name


def test_a_trace_of_sessions_and_its_cache() -> None:
    scenario = {
        **BASE,
        "deployment": {"serve": {"workers": 2, "gpus": 8, "tp": 8}},
        "workload": {
            "trace": "agentic-coding",
            "arrivals": {"poisson": {"rate_per_s": 0.5}},
            "requests": 300,
        },
        "prefix_cache": {"enabled": True, "scope": "worker"},
    }
    rows, summary = (figures(scenario, metrics, 0) for metrics in ("rows", "summary"))
    told_alike(rows, summary)


@pytest.mark.parametrize("seed", [3, 12, 19])
def test_a_run_that_outlasts_its_arrivals_by_far(seed: int) -> None:
    """The only worker of a pool fails and is repaired as it is by default, days later: rows have no latencies then."""
    workload = {
        "arrivals": {"poisson": {"rate_per_s": 3.0}},
        "lengths": {"input": {"constant": 900}, "output": {"uniform": [1, 40]}},
    }
    scenario = {**BASE, "deployment": APART, "workload": workload, "duration_s": 100}
    scenario["failures"] = {"per_gpu_hour": 0.5}
    rows, summary = (figures(scenario, metrics, seed) for metrics in ("rows", "summary"))
    assert rows[".stable"] is False and rows[".latency.ttft_s.p50"] is None
    told_alike(rows, summary)


def test_what_cannot_be_told_is_said() -> None:
    scenario = {**BASE, "deployment": SERVE, "metrics": "summary"}
    lengths = {"input": {"constant": 300}, "output": {"constant": 20}}
    workload = {"arrivals": {"poisson": {"rate_per_s": 3.0}}, "lengths": lengths, "requests": 50}
    result = sim.simulate({**scenario, "workload": workload})
    assert any(note.startswith("metrics: a summary is kept") for note in result.json()["notes"])
    with pytest.raises(RowsNotKeptError, match="keeps no rows of requests"):
        result.requests  # noqa: B018
    assert set(result.histograms["latency"]) == {"ttft_s", "tpot_s", "e2e_s"}
    assert result.histograms.groupby("latency")["requests"].sum().tolist() == [50, 50, 50]


def test_a_summary_is_saved_in_place_of_rows(tmp_path: Any) -> None:
    scenario = {**BASE, "deployment": SERVE}
    lengths = {"input": {"constant": 300}, "output": {"constant": 20}}
    scenario["workload"] = {"arrivals": {"poisson": {"rate_per_s": 3.0}}, "lengths": lengths, "requests": 50}
    for metrics in ("rows", "summary"):
        result = sim.simulate({**scenario, "metrics": metrics})
        result.save(tmp_path)
    kept = sim.load_result(tmp_path)
    assert kept.json() == result.json() and kept.histograms.equals(result.histograms)
    assert not (tmp_path / "requests.parquet").exists()
    with pytest.raises(RowsNotKeptError):
        kept.requests  # noqa: B018


def test_rows_are_those_of_requests_in_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten times the requests take no more rows, and the stream holds none of them."""
    rooms: list[int] = []

    class Watched(ledger_module.Ledger):
        def close(self, end_s: float) -> Any:
            rooms.append(self._room)
            return super().close(end_s)

    monkeypatch.setattr("sim.cluster.run.Ledger", Watched)
    monkeypatch.setattr(ledger_module, "FOLDED", 64)
    monkeypatch.setattr(ledger_module, "LEAST_ROOM", 100)
    lengths = {"input": {"constant": 300}, "output": {"constant": 5}}
    for requests in (500, 5000):
        workload = {"arrivals": {"poisson": {"rate_per_s": 10.0}}, "lengths": lengths, "requests": requests}
        result = sim.simulate({**BASE, "deployment": SERVE, "workload": workload, "metrics": "summary"})
        assert result.json()["requests"]["completed"] == requests
    assert rooms[0] == rooms[1] <= 200
