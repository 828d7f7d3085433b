"""Clients with windows: means that hold however bursty they are, and what the published data say."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from sim.scenario.errors import DeploymentError, ScenarioError
from sim.workload import requests, trace
from sim.workload.clients import Client, Window
from sim.workload.lengths import Weighted
from tests.workload.test_requests import scenario

CLIENT = {
    "client": 7,
    "window_s": 600,
    "windows": [[0, 60, "gamma", 1], [1200, 30, "weibull", 0.5]],
    "lengths": [
        {"from_s": 0, "input": [[100, 200], [1, 3]], "output": [[5], [1]]},
        {"from_s": 1200, "input": [[7], [2]], "output": [[9], [1]]},
    ],
}


def load(folder: Path, *rows: dict[str, object], until_s: float = math.inf) -> trace.Trace:
    (folder / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recorded = trace.load("c.jsonl", 0, folder, until_s)
    assert isinstance(recorded, trace.Trace)
    return recorded


@pytest.mark.parametrize(
    ("kind", "shape"),
    [("gamma", 0.05), ("gamma", 1.0), ("gamma", 4.0), ("weibull", 0.3), ("weibull", 1.4)],
)
def test_a_window_has_its_mean_number_of_arrivals_however_bursty(kind: str, shape: float) -> None:
    """A renewal process begun with the window would have (cv^2 - 1) / 2 more: with Gamma 0.05, 9.5 more than 12."""
    window, rng = Window(0.0, 12.0, kind, shape), np.random.default_rng(1)
    counts = np.array([len(window.times(600.0, rng)) for _ in range(4000)])
    assert counts.mean() == pytest.approx(12.0, abs=4 * counts.std() / math.sqrt(4000))


@pytest.mark.parametrize(
    ("kind", "shape", "cv"),
    [
        ("gamma", 0.25, 2.0),  # 1 / sqrt(k)
        ("gamma", 4.0, 0.5),
        ("weibull", 0.5, math.sqrt(5)),  # E[X^2] / E[X]^2 = 4! / 2!^2 = 6
        ("weibull", 1.0, 1.0),
    ],
)
def test_gaps_have_the_coefficient_of_variation_of_their_shape(kind: str, shape: float, cv: float) -> None:
    gaps = np.diff(Window(0.0, 200_000.0, kind, shape).times(600.0, np.random.default_rng(2)))
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.03)
    assert gaps.mean() == pytest.approx(600 / 200_000, rel=0.03)


def test_arrivals_stay_in_their_window_and_have_the_lengths_of_the_hour(tmp_path: Path) -> None:
    got = load(tmp_path, CLIENT)
    assert got.arrival_s is not None
    first, second = got.arrival_s < 600, got.arrival_s >= 1200
    assert (first | second).all() and got.arrival_s.max() < 1800
    assert set(got.prompts.input_tokens[first].tolist()) == {100, 200}
    assert set(got.prompts.output_tokens[first].tolist()) == {5}
    assert set(got.prompts.input_tokens[second].tolist()) == {7}
    assert set(got.prompts.output_tokens[second].tolist()) == {9}


def test_clients_do_not_depend_on_one_another_nor_on_the_end(tmp_path: Path) -> None:
    other = {**CLIENT, "client": 8}
    alone, both, early = (
        load(tmp_path, CLIENT),
        load(tmp_path, other, CLIENT),
        load(tmp_path, CLIENT, until_s=400.0),
    )
    assert alone.arrival_s is not None and both.arrival_s is not None and early.arrival_s is not None
    assert set(alone.arrival_s) <= set(both.arrival_s)
    assert len(both.arrival_s) > len(alone.arrival_s)
    assert early.arrival_s.tolist() == [t for t in alone.arrival_s.tolist() if t < 400]


def test_weighted_token_counts_never_draw_what_has_no_weight() -> None:
    drawn = Weighted(np.array([1, 2, 3, 4]), np.array([0.0, 1.0, 3.0, 0.0])).draw(
        np.random.default_rng(3), 8000
    )
    assert set(drawn.tolist()) == {2, 3}
    assert (drawn == 3).mean() == pytest.approx(0.75, abs=4 * math.sqrt(0.75 * 0.25 / 8000))


def test_a_client_without_requests_draws_none() -> None:
    client = Client(0, 600.0, (Window(1200.0, 5.0, "gamma", 1.0),), ())
    times, inputs, outputs = client.draw(0, until_s=600.0)
    assert len(times) == len(inputs) == len(outputs) == 0


def test_the_shipped_day_of_deepseek_r1() -> None:
    """73 clients and 1,383,669 requests (sum of rate x 600 s over all windows of ServeGen's files); mean lengths of
    their distributions weighted by requests, from a merge made apart: 1,268 and 1,527 tokens."""
    recorded = trace.load("servegen-r1", seed=0)
    assert isinstance(recorded, trace.Trace) and recorded.arrival_s is not None
    assert len(recorded.prompts) == pytest.approx(1_383_669, rel=0.01)
    assert recorded.prompts.input_tokens.mean() == pytest.approx(1268.3, rel=0.01)
    assert recorded.prompts.output_tokens.mean() == pytest.approx(1527.4, rel=0.01)
    assert (np.diff(recorded.arrival_s) >= 0).all()
    assert recorded.arrival_s[0] >= 0 and recorded.arrival_s[-1] < 86_400
    by_hour = np.bincount((recorded.arrival_s // 3600).astype(int))
    assert by_hour[0] == pytest.approx(69_511, rel=0.02)


def test_a_scenario_draws_what_its_duration_needs() -> None:
    stream = requests(scenario({"trace": "servegen-r1"}, duration_s=600.0), 1)
    assert 0 < stream.arrival_s[-1] < 600
    again, other = (requests(scenario({"trace": "servegen-r1"}, duration_s=600.0), seed) for seed in (1, 2))
    assert again.arrival_s.tolist() == stream.arrival_s.tolist() != other.arrival_s.tolist()
    minute = requests(scenario({"trace": "servegen-r1"}, duration_s=60.0), 1)
    assert minute.arrival_s.tolist() == [t for t in stream.arrival_s.tolist() if t < 60]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"window_s": 0}, "window_s: expected a number above 0, got 0"),
        ({"windows": [[0, 60, "pareto", 1]]}, "windows: expected gamma or weibull, got 'pareto'"),
        ({"windows": [[0, 60, "gamma"]]}, "windows: expected a list of 4"),
        ({"windows": [[600, 6, "gamma", 1], [0, 6, "gamma", 1]]}, "expected ascending starts from 0 s on"),
        ({"windows": [[0, -1, "gamma", 1]]}, "expected a number above 0, got -1"),
        ({"windows": []}, "no client sends anything"),
        ({"lengths": []}, "lengths: none from 0 s, where requests begin"),
        ({"lengths": [{"from_s": 0, "input": [[1], [1]]}]}, "expected objects with from_s, input and output"),
        (
            {"lengths": [{"from_s": 0, "input": [[1, 2], [1]], "output": [[1], [1]]}]},
            "as many weights as token",
        ),
        (
            {"lengths": [{"from_s": 0, "input": [[0], [1]], "output": [[1], [1]]}]},
            "expected at least 1, got 0",
        ),
    ],
)
def test_a_broken_file_of_clients_is_one_error(tmp_path: Path, change: dict[str, object], says: str) -> None:
    with pytest.raises(ScenarioError, match=r"c\.jsonl") as raised:
        load(tmp_path, {**CLIENT, **change})
    assert says in raised.value.problems[0].message


def test_every_broken_client_is_told(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError) as raised:
        load(tmp_path, CLIENT, {**CLIENT, "window_s": 0}, {**CLIENT, "windows": [], "lengths": 3})
    assert [problem.line for problem in raised.value.problems] == [2, 3]


def test_more_requests_than_fit_in_memory_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DeploymentError, match="fit in memory"):
        load(tmp_path, {**CLIENT, "windows": [[0, 1e9, "gamma", 1]]})
