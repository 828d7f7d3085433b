"""Arrivals of an open loop: rates, spread and bounds."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sim.scenario.errors import DeploymentError, ScenarioError
from sim.scenario.schema import Arrivals, Scenario
from sim.workload import drawn, incoming, requests
from sim.workload.arrivals import PIECE, arrival_times
from sim.workload.drawn import DrawnStream

POISSON = {"poisson": {"rate_per_s": 20.0}}
BURSTY = {"gamma": {"rate_per_s": 20.0, "cv": 3.0}}
DAILY = {"diurnal": {"mean_rate_per_s": 2.0, "curve": "deepseek-24h"}}


def times(
    form: dict[str, object],
    count: int | None,
    duration_s: float | None,
    folder: Path | None = None,
    seed: int = 5,
) -> np.ndarray:
    return arrival_times(Arrivals(**form), count, duration_s, seed, folder)


def test_poisson_gaps_are_exponential() -> None:
    gaps = np.diff(times(POISSON, 20_000, None), prepend=0.0)
    assert stats.kstest(gaps, stats.expon(scale=1 / 20).cdf).pvalue > 0.001


def test_poisson_counts_of_a_duration() -> None:
    arrived = times(POISSON, None, 1000.0)
    # 20,000 expected, standard deviation 141; four of them.
    assert abs(len(arrived) - 20_000) < 566
    assert arrived[0] >= 0
    assert arrived[-1] < 1000


@pytest.mark.parametrize("cv", [0.2, 1.0, 3.0])
def test_gamma_gaps_have_the_mean_and_cv(cv: float) -> None:
    gaps = np.diff(times({"gamma": {"rate_per_s": 20.0, "cv": cv}}, 50_000, None), prepend=0.0)
    # From the 30% point up: below it, gaps of cv 3 are smaller than the resolution of the times they were added to.
    shares = np.array([0.3, 0.5, 0.7, 0.9, 0.99])
    points = stats.gamma(a=cv**-2, scale=cv**2 / 20).ppf(shares)
    below = (gaps[:, None] <= points).mean(axis=0)
    assert (abs(below - shares) < 4 * np.sqrt(shares * (1 - shares) / len(gaps))).all()
    # Standard error of the mean: cv / sqrt(50,000) of it; four of them.
    assert abs(gaps.mean() * 20 - 1) < 4 * cv / np.sqrt(50_000)


def test_a_day_of_the_deepseek_curve() -> None:
    arrived = times(DAILY, None, 86_400.0)
    # Mean rate 2/s: 172,800 expected, standard deviation 416.
    assert abs(len(arrived) - 172_800) < 4 * 416
    by_hour = np.bincount((arrived // 3600).astype(int), minlength=24)
    # The file says 0.2702 of the mean at 4 o'clock and 1.3262 at 22: 1,945 and 9,549 requests an hour.
    assert abs(by_hour[4] - 1945) < 4 * np.sqrt(1945)
    assert abs(by_hour[22] - 9549) < 4 * np.sqrt(9549)


def test_the_day_comes_again(tmp_path: Path) -> None:
    (tmp_path / "shift.csv").write_text("hour,load\n0,0\n8,1\n16,0\n")
    arrived = times({"diurnal": {"mean_rate_per_s": 1.0, "curve": "shift.csv"}}, None, 2 * 86_400.0, tmp_path)
    hour = arrived % 86_400 / 3600
    assert ((hour >= 8) & (hour <= 16)).all()
    # One request a second on average over the day, all in its eight hours: 86,400 on each day.
    first_day = (arrived < 86_400).sum()
    assert abs(first_day - 86_400) < 4 * 294
    assert abs(len(arrived) - first_day - 86_400) < 4 * 294


@given(
    form=st.sampled_from([POISSON, BURSTY, DAILY]),
    count=st.integers(1, 400),
    more=st.integers(0, 400),
    duration_s=st.floats(0.1, 60),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=80, deadline=None)
def test_bounds_cut_the_same_times(
    form: dict[str, object], count: int, more: int, duration_s: float, seed: int
) -> None:
    """A bound never changes what came before it, and whichever bound comes first holds."""
    longer = times(form, count + more, None, seed=seed)
    assert len(longer) == count + more
    assert (np.diff(longer) >= 0).all()
    assert times(form, count, None, seed=seed).tolist() == longer[:count].tolist()
    both = times(form, count, duration_s, seed=seed)
    assert both.tolist() == [t for t in longer[:count].tolist() if t < duration_s]
    timed = times(form, None, duration_s, seed=seed)
    assert timed[:count].tolist() == both.tolist()


def test_all_at_once_needs_a_number() -> None:
    assert times({"all_at_once": {}}, 3, None).tolist() == [0, 0, 0]
    with pytest.raises(DeploymentError, match=r"workload\.requests"):
        times({"all_at_once": {}}, None, 10.0)


def test_a_number_beyond_memory_is_refused_before_it_is_drawn() -> None:
    with pytest.raises(DeploymentError, match="fit in memory"):
        times({"poisson": {"rate_per_s": 1e6}}, None, 3600.0)
    assert len(times(POISSON, 10**12, 10.0)) < 400


@pytest.mark.parametrize(
    ("arrivals", "bounds"),
    [
        (POISSON, {"requests": 10**12}),
        (BURSTY, {"requests": 10**12}),
        (DAILY, {"requests": 10**12}),
        ({"all_at_once": {}}, {"requests": 10**12}),
        ({"poisson": {"rate_per_s": 1e6}}, {"duration_s": 1e7}),
        ({"gamma": {"rate_per_s": 1e6, "cv": 2.0}}, {"duration_s": 1e7}),
        ({"diurnal": {"mean_rate_per_s": 1e6, "curve": "deepseek-24h"}}, {"duration_s": 1e7}),
    ],
)
def test_a_number_beyond_drawing_is_refused_before_it_is_drawn(
    arrivals: dict[str, object], bounds: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a summary keeps none; fewer are drawn, whichever bound ends them."""

    def drawn(**bounds: float) -> int:
        lengths = {"input": {"constant": 10}, "output": {"constant": 2}}
        workload = {"arrivals": arrivals, "lengths": lengths}
        if "requests" in bounds:
            workload["requests"] = bounds.pop("requests")
        service = {"model": "deepseek-v3", "gpu": "h200_sxm", "deployment": {"serve": {"gpus": 8, "tp": 8}}}
        form = {**service, "workload": workload, "metrics": "summary", **bounds}
        return len(incoming(Scenario.model_validate(form), seed=0))

    def stopped(*_: object) -> None:
        raise AssertionError("requests were drawn")

    with monkeypatch.context() as watched, pytest.raises(DeploymentError, match="at most 1,000,000,000 are"):
        watched.setattr("sim.workload.build.Source.next", stopped)
        drawn(**bounds)
    assert drawn(**{**bounds, "requests": 70_000, "duration_s": 1e7}) == 70_000


@pytest.mark.parametrize(
    ("text", "place", "says"),
    [
        ("hour,load\n1,1\n", "c.csv:2:1", "expected 0 first"),
        ("hour,load\n0,1\n5,1\n5,2\n", "c.csv:4:1", "ascending"),
        ("hour,load\n0,1\n24,1\n", "c.csv:3:1", "below 24"),
        ("hour,load\n0,1\n5,-1\n", "c.csv:3:3", "expected at least 0"),
        ("hour,load\n0,0\n5,0\n", "c.csv", "zero all day"),
        ("hour,load\n0,nan\n", "c.csv:2:3", "finite"),
        ("hour,load\n0,1\n5,1e308\n", "c.csv:3:3", "at most 1e+24"),
    ],
)
def test_a_broken_curve_is_one_error_with_its_place(tmp_path: Path, text: str, place: str, says: str) -> None:
    (tmp_path / "c.csv").write_text(text)
    with pytest.raises(ScenarioError) as raised:
        times({"diurnal": {"mean_rate_per_s": 1.0, "curve": "c.csv"}}, 1, None, tmp_path)
    (problem,) = raised.value.problems
    assert str(problem.place) == str(tmp_path / place)
    assert says in problem.message


def test_every_broken_hour_is_told(tmp_path: Path) -> None:
    (tmp_path / "c.csv").write_text("hour,load\n0,1\n5,-1\n5,2\n30,1\n")
    with pytest.raises(ScenarioError) as raised:
        times({"diurnal": {"mean_rate_per_s": 1.0, "curve": "c.csv"}}, 1, None, tmp_path)
    assert [(p.line, p.column) for p in raised.value.problems] == [(3, 3), (4, 1), (5, 1)]


def test_an_unknown_curve_names_the_nearest() -> None:
    with pytest.raises(DeploymentError, match="did you mean 'deepseek-24h'"):
        times({"diurnal": {"mean_rate_per_s": 1.0, "curve": "deepseek-24"}}, 1, None)


@pytest.mark.parametrize(
    "arrivals",
    [
        {"poisson": {"rate_per_s": 30.0}},
        {"gamma": {"rate_per_s": 30.0, "cv": 2.0}},
        {"diurnal": {"mean_rate_per_s": 30.0, "curve": "deepseek-24h"}},
        {"all_at_once": {}},
    ],
)
@pytest.mark.parametrize("bounds", [{"requests": 100_000}, {"requests": 100_000, "duration_s": 2500.0}])
def test_requests_drawn_as_they_arrive_are_the_same(
    arrivals: dict[str, object], bounds: dict[str, float]
) -> None:
    """Of all, and of the share that a part of a fleet gets; more than a piece of them."""
    form = {
        "model": "deepseek-v3", "gpu": "h200_sxm", "deployment": {"serve": {"gpus": 8, "tp": 8}},
        "workload": {
            "arrivals": arrivals, "requests": bounds["requests"], "cached_fraction": 0.3,
            "lengths": {"input": {"lognormal": {"mean": 900, "cv": 2.0}}, "output": {"uniform": [1, 40]}},
        },
        **({"duration_s": bounds["duration_s"]} if "duration_s" in bounds else {}),
    }  # fmt: skip
    for fleet in (None, {"replicas": 7, "simulated": 3}):
        scenario = Scenario.model_validate(form | ({"fleet": fleet} if fleet else {}))
        whole, stream = (
            requests(scenario, seed=3),
            incoming(scenario.model_copy(update={"metrics": "summary"}), seed=3),
        )
        assert isinstance(stream, DrawnStream) and len(stream) == len(whole) > PIECE / 3
        assert list(stream) == list(whole)
        assert stream.least_tokens == whole.least_tokens and stream.notes == whole.notes
        assert stream.last_arrival_s == whole.last_arrival_s and stream.known_until_s == whole.known_until_s


def test_counting_what_a_summary_will_serve_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every second; here at every look."""
    form = {
        "model": "deepseek-v3", "gpu": "h200_sxm", "deployment": {"serve": {"gpus": 8, "tp": 8}}, "metrics": "summary",
        "workload": {
            "arrivals": {"poisson": {"rate_per_s": 1}}, "requests": 3 * PIECE,
            "lengths": {"input": {"constant": 10}, "output": {"constant": 10}},
        },
    }  # fmt: skip
    told: list[tuple[int, int]] = []
    incoming(Scenario.model_validate(form), 0, counting=lambda *counted: told.append(counted))
    assert told == []
    monkeypatch.setattr(drawn, "REPORT_EVERY_S", 0.0)
    incoming(Scenario.model_validate(form), 0, counting=lambda *counted: told.append(counted))
    assert told == [(0, PIECE), (0, 2 * PIECE), (0, 3 * PIECE)]
