"""Charts, tables, report and `compare` of results that are unlike one another, or that lack figures."""

import copy
import io
import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console
from typer.testing import CliRunner

import sim
from dashboard.data import headline
from sim.cli import app
from sim.cli import tables as printed
from sim.report import run as services
from sim.report import tables
from sim.report.html import report
from sim.report.run import Shown, charts
from sim.report.service import frontier
from sim.scenario.loading import parse
from sim.scenario.schema import Scenario

PLAIN = """
model: deepseek-v3.2
gpu: h200_sxm
profile: analytic
deployment: {serve: {gpus: 8, ep: 8, max_batch_per_gpu: 64}}
workload:
  arrivals: {poisson: {rate_per_s: 2}}
  lengths: {input: {constant: 1000}, output: {constant: 20}}
duration_s: 20
"""
DRAWN = ("throughput", "prices", "latency", "provenance")
SEPARATE = "deployment: {prefill: {gpus: 8, ep: 8}, decode: {gpus: 16, ep: 16}}"
ODD = {
    "plain": PLAIN,
    "ttft": PLAIN + "objectives: {ttft_p99_s: 2.0}\n",
    "tpot": PLAIN + "objectives: {tpot_p99_s: 0.05}\n",
    "all": PLAIN + "objectives: {ttft_p99_s: 1.0, tpot_p99_s: 0.02, e2e_p99_s: 9.0}\n",
    "own-price": PLAIN + "price: {usd_per_gpu_hour: 3.5, margin: 0.5}\n",
    "unstable": PLAIN.replace("rate_per_s: 2", "rate_per_s: 500"),
    "drafts": PLAIN + "speculation: {draft_tokens: 2}\n",
    "separate": PLAIN.replace("deployment: {serve: {gpus: 8, ep: 8, max_batch_per_gpu: 64}}", SEPARATE),
    "one-token": PLAIN.replace("output: {constant: 20}", "output: {constant: 1}"),
    "empty": PLAIN.replace("rate_per_s: 2", "rate_per_s: 1e-6"),
}


class Run:
    """A result whose JSON somebody has changed."""

    def __init__(self, data: dict[str, Any], requests: pd.DataFrame) -> None:
        self.data, self.requests = data, requests

    def json(self) -> dict[str, Any]:
        return self.data


@pytest.fixture(scope="module")
def odd() -> dict[str, Shown]:
    return {name: services.shown(name, sim.simulate(parse(text).scenario)) for name, text in ODD.items()}


def test_any_two_results_are_drawn_side_by_side(odd: Mapping[str, Shown]) -> None:
    for pair in itertools.combinations(odd.values(), 2):
        assert list(charts(pair)) == list(DRAWN)
        assert len(tables.overview_table([(s.name, s.state, s.run and s.run.json()) for s in pair])) == 2


def test_any_two_results_are_printed_side_by_side(odd: Mapping[str, Shown]) -> None:
    for pair in itertools.combinations(odd.values(), 2):
        screen = Console(file=io.StringIO(), width=200)
        for part in printed.runs({s.name: s.run.json() for s in pair if s.run}, {"deepseek-v3.2": []}):
            screen.print(part)
        said = screen.file.getvalue()  # type: ignore[attr-defined]
        assert all(s.name in said for s in pair if s.run)


def test_all_of_them_share_a_report(odd: Mapping[str, Shown]) -> None:
    page = report(list(odd.values()))
    assert "objective of ttft" in page and "objective of all" in page


def test_each_objective_is_drawn_for_whom_it_binds(odd: Mapping[str, Shown]) -> None:
    def lines(*names: str) -> list[tuple[str, float]]:
        figure = charts([odd[name] for name in names], ["latency"])["latency"].figure
        return [(trace.name, trace.y[0]) for trace in figure.data if trace.type == "scatter"]

    assert lines("ttft", "tpot") == [("objective of ttft", 2.0), ("objective of tpot", 50.0)]
    assert lines("all", "ttft") == [
        ("objective of all", 1.0),
        ("objective of ttft", 2.0),
        ("objective of all", 20.0),
    ]
    assert lines("plain", "drafts") == []
    assert lines("ttft") == [("objective at p99", 2.0)]


def test_the_terminal_and_the_page_judge_objectives_as_goodput_does(odd: Mapping[str, Shown]) -> None:
    """Answers of one token have no TPOT: they keep its objective, whatever it is."""
    bounds = {"ttft_p99_s": 2.0, "tpot_p99_s": 0.05}
    told = {}
    for name in ("plain", "one-token", "unstable", "empty"):
        one = odd[name]
        assert one.run is not None
        data = one.run.json() | {"scenario": one.run.json()["scenario"] | {"objectives": bounds}}
        promising = replace(
            one, scenario=Scenario.model_validate(data["scenario"]), run=Run(data, one.run.requests)
        )
        lines = [line.plain.split("ms: ")[-1].split("s: ")[-1] for line in printed.promises(data)]
        told[name] = lines, headline.simulated(promising)[-1].text
    assert told["plain"][1] == "2 of 2 kept" and all(line.startswith("kept (") for line in told["plain"][0])
    assert told["one-token"][1] == "2 of 2 kept"
    assert told["one-token"][0][1] == "kept (no request has a TPOT)"
    assert told["unstable"] == (["missed (the backlog grows)"] * 2, "0 of 2 kept")
    assert told["empty"] == (["missed (nothing was measured)"] * 2, "0 of 2 kept")


def test_a_load_above_capacity_is_not_told_as_a_plain_fact(odd: Mapping[str, Shown]) -> None:
    """A run may be too short to tell that its backlog grows."""
    run = odd["plain"].run
    assert run is not None
    loads = {load: run.json() | {"capacity": run.json()["capacity"] | {"load": load}} for load in (0.5, 1.12)}
    lines = {load: printed.headline("a", data).plain for load, data in loads.items()}
    assert "at 50.0% of capacity\n" in lines[0.5]
    assert "at 112.0% of capacity, as estimated: only a longer run tells" in lines[1.12]


def test_compare_takes_scenarios_of_different_objectives(tmp_path: Path) -> None:
    files = [tmp_path / f"{name}.yaml" for name in ("ttft", "tpot", "separate", "unstable")]
    for file in files:
        file.write_text(ODD[file.stem], encoding="utf-8")
    ran = CliRunner().invoke(app, ["compare", *map(str, files), "--out", str(tmp_path / "out"), "--json"])
    assert ran.exit_code == 0, ran.output
    assert [run["name"] for run in json.loads(ran.stdout.splitlines()[-1])["runs"]] == [f.stem for f in files]
    assert (tmp_path / "out" / "report.html").is_file()


def paths(data: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in data.items():
        yield (*above, key)
        if isinstance(value, Mapping) and key != "scenario":
            yield from paths(value, (*above, key))


def without(data: dict[str, Any], path: tuple[str, ...], null: bool) -> dict[str, Any]:
    changed = copy.deepcopy(data)
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    if null:
        inner[path[-1]] = None
    else:
        del inner[path[-1]]
    return changed


def test_a_figure_that_is_null_or_missing_is_left_out(odd: Mapping[str, Shown]) -> None:
    one = odd["all"]
    assert one.run is not None
    whole = one.run.json()
    for index, path in enumerate(paths(whole)):
        for null in (True, False):
            lacking = without(whole, path, null)
            assert len(tables.overview_table([("a", one.state, lacking)])) == 1
            assert len(tables.headline_table({"a": lacking})) == 1
            tables.run_point(lacking)
        if path[0] in ("latency", "throughput", "cost", "priced_by"):
            run = Run(without(whole, path, null=index % 2 == 0), one.run.requests)
            assert charts([Shown("a", one.scenario, one.state if index % 3 else None, run)], DRAWN)


def test_a_report_stands_a_result_without_its_cost(odd: Mapping[str, Shown]) -> None:
    one = odd["plain"]
    assert one.run is not None
    for path in (
        ("cost",),
        ("cost", "usd_per_gpu_hour"),
        ("cost", "usd_per_million"),
        ("stable",),
        ("latency",),
    ):
        run = Run(without(one.run.json(), path, null=True), one.run.requests)
        assert "<h1>plain</h1>" in report([Shown("plain", one.scenario, one.state, run)])


def test_a_line_is_drawn_only_where_users_pay_for_throughput() -> None:
    """Light loads at one speed, then a fold: of equal or better points only the heaviest stay, in their order."""
    curve = pd.DataFrame(
        {
            tables.INTERACTIVITY: [57.0, 57.0, 61.0, 58.0, 50.0],
            tables.PER_GPU: [0.4, 38.0, 82.0, 116.0, 300.0],
        }
    )
    assert frontier(curve)[tables.PER_GPU].tolist() == [82.0, 116.0, 300.0]
    flat = curve.assign(**{tables.INTERACTIVITY: 57.0})
    assert frontier(flat)[tables.PER_GPU].tolist() == [300.0]
    assert frontier(curve.iloc[:0]).empty
