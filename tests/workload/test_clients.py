"""Clients with windows: means that hold however bursty they are, and what the published data say."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from sim.cli import app
from sim.scenario.errors import DeploymentError, ScenarioError
from sim.workload import clients, requests, trace
from sim.workload.clients import Client, ClientWindow
from sim.workload.lengths import Weighted
from sim.workload.reading import read
from sim.workload.table import FileTable
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
    window, rng = ClientWindow(0.0, 12.0, kind, shape), np.random.default_rng(1)
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
    gaps = np.diff(ClientWindow(0.0, 200_000.0, kind, shape).times(600.0, np.random.default_rng(2)))
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
    assert len(set(both.arrival_s)) == len(both.arrival_s), (
        "clients that are alike send at times of their own"
    )
    assert early.arrival_s.tolist() == [t for t in alone.arrival_s.tolist() if t < 400]


def test_weighted_token_counts_never_draw_what_has_no_weight() -> None:
    drawn = Weighted(np.array([1, 2, 3, 4]), np.array([0.0, 1.0, 3.0, 0.0])).draw(
        np.random.default_rng(3), 8000
    )
    assert set(drawn.tolist()) == {2, 3}
    assert (drawn == 3).mean() == pytest.approx(0.75, abs=4 * math.sqrt(0.75 * 0.25 / 8000))


def test_a_client_without_requests_draws_none() -> None:
    client = Client(0, 600.0, (ClientWindow(1200.0, 5.0, "gamma", 1.0),), ())
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


@pytest.mark.parametrize(
    ("number", "start_s", "rate_per_s", "cv", "kind", "shape"),
    [  # rows of ServeGen's chunk-N-trace.csv: t, rate, cv, distribution, its first parameter
        (50, 43_200, 0.161667, 9.079997, "gamma", 0.012129),
        (50, 67_800, 0.065, 1.266741, "gamma", 0.623196),
        (12, 76_200, 6.325, 1.027400, "weibull", 0.971540),
    ],
)
def test_windows_of_deepseek_r1_are_as_published(
    number: int, start_s: float, rate_per_s: float, cv: float, kind: str, shape: float
) -> None:
    service = clients.parse("servegen-r1", read(trace.FOLDER / "servegen_deepseek_r1.jsonl.xz"))
    [client] = [one for one in service.clients if one.number == number]
    [window] = [one for one in client.windows if one.start_s == start_s]
    assert (client.window_s, window.kind) == (600.0, kind)
    assert window.requests == pytest.approx(600 * rate_per_s, abs=0.01)
    assert window.shape == pytest.approx(shape, rel=1e-3)
    long = replace(window, requests=300_000.0)
    gaps = np.diff(long.times(600.0, np.random.default_rng(4)))
    # The published cv is of the gaps themselves, the shape of the law fitted to them.
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.05)


@st.composite
def services(draw: st.DrawFn) -> list[dict[str, object]]:
    """Clients with windows of a minute and lengths that tell who sent a request and when."""
    rows: list[dict[str, object]] = []
    for number in range(draw(st.integers(1, 4))):
        starts = sorted(draw(st.sets(st.integers(0, 9), min_size=1, max_size=5)))
        shape = st.tuples(st.floats(0.1, 30), st.sampled_from(["gamma", "weibull"]), st.floats(0.2, 3))
        lengths = [
            {"from_s": 60 * at, "input": [[100 * number + at + 1], [1]], "output": [[number + 1], [1]]}
            for at in range(10)
        ]
        windows = [[60 * at, *draw(shape)] for at in starts]
        rows.append({"client": number, "window_s": 60, "windows": windows, "lengths": lengths})
    return rows


@given(services(), st.integers(0, 99), st.floats(1, 700))
@settings(max_examples=40, deadline=None)
def test_whoever_sends_does_so_in_a_window_of_his_own(rows, seed: int, until_s: float) -> None:
    service = clients.Clients("any", tuple(_client(row) for row in rows))
    prompts, times = service.draw(seed, until_s)
    assert (np.diff(times) >= 0).all() and (times < until_s).all()
    for at_s, prompt, answer in zip(times, prompts.input_tokens, prompts.output_tokens, strict=True):
        window_s = int(at_s // 60) * 60
        assert prompt == 100 * (answer - 1) + window_s // 60 + 1
        assert window_s in [start for start, *_ in rows[answer - 1]["windows"]]
    again, others = service.draw(seed, until_s)[1], service.draw(seed + 1, until_s)[1]
    assert again.tolist() == times.tolist()
    assert not len(times) or others.tolist() != times.tolist()


def _client(row: dict[str, object]) -> Client:
    table = FileTable("any", (json.dumps(row),), (1,), {name: [cell] for name, cell in row.items()})
    return clients.parse("any", table).clients[0]


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
        ({"window_s": 5e-324}, "window_s: expected at least 0.001 s, got 4.94066e-324"),
        ({"windows": [[0, 60, "pareto", 1]]}, "windows: expected gamma or weibull, got 'pareto'"),
        ({"windows": [[0, 60, "weibull", 0.005]]}, "windows: expected a shape of at least 0.01, got 0.005"),
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


def test_clients_that_send_nothing_are_understood(tmp_path: Path) -> None:
    """A window of next to no requests; or one that begins after the run has ended."""
    file = tmp_path / "quiet.jsonl"
    file.write_text(
        '{"client": 0, "window_s": 600, "windows": [[0, 1e-300, "gamma", 1]], '
        '"lengths": [{"from_s": 0, "input": [[100], [1]], "output": [[50], [1]]}]}'
    )
    told = CliRunner().invoke(app, ["trace", str(file), "--json"])
    assert told.exit_code == 0, told.output
    data = json.loads(told.stdout.splitlines()[-1])
    assert data["requests"] == 0 and data["span_s"] == 0 and data["input_tokens"] is None
