"""Sweeps: which points, what a row says, and going on after a kill."""

import json
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from sim.cli.commands import app
from sim.cli.sweep_command import commonest
from sim.planner.points import load_sweep
from sim.planner.sweep import JOURNAL, TABLE, Job, figures, run_sweep
from sim.scenario.errors import ScenarioError
from sim.scenario.loading import load
from sim.simulation import simulate

BASE = """
model: deepseek-v3
gpu: h200_sxm
profile: analytic
deployment: {serve: {gpus: 8, tp: 8, max_batch_per_gpu: 32}}
workload:
  arrivals: {poisson: {rate_per_s: 2}}
  lengths: {input: {constant: 500}, output: {constant: 20}}
  requests: 20
price: {tier: rent_3yr}
"""
SWEEP = """
base: base.yaml
grid:
  workload.arrivals.poisson.rate_per_s: [1, 2.5]
  router: [round_robin, least_loaded]
cases:
  - {gpu: h100_sxm}
  - {deployment: {serve: {gpus: 16, tp: 8}}, router: round_robin}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    return tmp_path / "sweep.yaml"


def test_points_are_every_combination_and_then_every_case(file: Path) -> None:
    rate, router = "workload.arrivals.poisson.rate_per_s", "router"
    assert [point.values for point in load_sweep(file).points] == [
        {rate: 1, router: "round_robin"},
        {rate: 1, router: "least_loaded"},
        {rate: 2.5, router: "round_robin"},
        {rate: 2.5, router: "least_loaded"},
        {"gpu": "h100_sxm"},
        {"deployment": {"serve": {"gpus": 16, "tp": 8}}, router: "round_robin"},
    ]


def test_a_row_holds_the_overrides_and_every_figure_of_the_run(file: Path, tmp_path: Path) -> None:
    table = run_sweep(load_sweep(file), tmp_path / "out", seed=3)
    assert list(table.point) == [0, 1, 2, 3, 4, 5] and set(table.seed) == {3}
    direct = simulate(load(tmp_path / "base.yaml", ["workload.arrivals.poisson.rate_per_s=2.5"]).scenario, 3)
    row, data = table.iloc[3], direct.json()
    assert row["latency.ttft_s.p99"] == data["latency"]["ttft_s"]["p99"]
    assert row["cost.usd_per_million.output"] == data["cost"]["usd_per_million"]["output"]
    assert row["workload.arrivals.poisson.rate_per_s"] == 2.5 and row["router"] == "least_loaded"
    assert table.error[3] is None and "GB missing" in table.error[4]
    assert table["gpus"][5] == 16
    written = pd.read_parquet(tmp_path / "out" / TABLE)
    assert list(written.columns) == list(table.columns)
    assert list(written.error.isna()) == [True] * 4 + [False, True]
    pd.testing.assert_frame_equal(
        written.drop(columns="error"), table.drop(columns="error"), check_dtype=False
    )


def test_it_goes_on_where_it_was_killed(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run_sweep(load_sweep(file), tmp_path / "whole")
    lines = (tmp_path / "whole" / JOURNAL).read_text().splitlines(keepends=True)
    (tmp_path / "cut").mkdir()
    # Two points are done, the third was being written.
    (tmp_path / "cut" / JOURNAL).write_text("".join(lines[:2]) + lines[2][:40])
    ran = []

    def counted(job: Job) -> dict:
        ran.append(job)
        return figures(job)

    monkeypatch.setattr("sim.planner.sweep.figures", counted)
    again = run_sweep(load_sweep(file), tmp_path / "cut")
    assert len(ran) == 4
    walls = ["wall_s"]
    pd.testing.assert_frame_equal(again.drop(columns=walls), whole.drop(columns=walls))
    assert all(json.loads(line) for line in (tmp_path / "cut" / JOURNAL).read_text().splitlines())
    # Another seed is another run; the same one has nothing left to do.
    run_sweep(load_sweep(file), tmp_path / "cut")
    assert len(ran) == 4
    run_sweep(load_sweep(file), tmp_path / "cut", seed=1)
    assert len(ran) == 10


def test_two_processes_find_what_one_finds(file: Path, tmp_path: Path) -> None:
    one, two = (run_sweep(load_sweep(file), tmp_path / str(n), workers=n) for n in (1, 2))
    pd.testing.assert_frame_equal(one.drop(columns="wall_s"), two.drop(columns="wall_s"))


def test_so_does_a_ray_cluster(file: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="the extra `cluster` is not installed")
    one, many = (run_sweep(load_sweep(file), tmp_path / str(ray), ray=ray) for ray in (None, "local"))
    pd.testing.assert_frame_equal(one.drop(columns="wall_s"), many.drop(columns="wall_s"))


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        (
            "router: [",
            "rooter: [",
            "sweep.yaml:5:3: grid.rooter: no key of a scenario; did you mean 'router'?",
        ),
        ("base: base.yaml", "base: bas.yaml", "no such file"),
        ("base: base.yaml", "bases: base.yaml", "unknown key; did you mean 'base'?"),
        ("[round_robin, least_loaded]", "[]", "grid.router: expected at least one value"),
        ("{gpu: h100_sxm}", "{gpus: h100_sxm}", "cases.0.gpus: no key of a scenario"),
        ("[1, 2.5]", "3", "a list"),
    ],
)
def test_a_broken_sweep_says_where(file: Path, before: str, after: str, says: str) -> None:
    file.write_text(SWEEP.replace(before, after))
    with pytest.raises(ScenarioError) as raised:
        load_sweep(file)
    assert says in str(raised.value)


def test_nothing_to_vary_is_no_sweep(file: Path) -> None:
    file.write_text("base: base.yaml\n")
    with pytest.raises(ScenarioError, match="nothing is varied"):
        load_sweep(file)


def test_a_grid_beyond_reason_is_refused_before_it_is_built(file: Path) -> None:
    keys = ("duration_s", "warmup_s", "scheduling.ingress_s", "experts.redundant", "prefix_cache.host_gb")
    values = ", ".join(str(n) for n in range(1, 31))
    file.write_text("base: base.yaml\ngrid:\n" + "".join(f"  {key}: [{values}]\n" for key in keys))
    with pytest.raises(ScenarioError, match="24,300,000 combinations"):
        load_sweep(file)


def test_a_row_also_holds_what_the_deployment_could_carry(file: Path, tmp_path: Path) -> None:
    table = run_sweep(load_sweep(file), tmp_path / "out")
    assert (table["capacity.requests_per_s"].dropna() > 0).all()
    assert set(table.limited_by.dropna()) == {"serve"}


def test_a_sweep_that_is_stopped_leaves_the_earlier_table(file: Path, tmp_path: Path) -> None:
    """However many points were done: no table of some of them takes the place of a whole one."""
    many = tmp_path / "many.yaml"
    many.write_text(
        "base: base.yaml\ngrid: {workload.requests: [" + ", ".join(map(str, range(1, 40))) + "]}\n"
    )
    out = tmp_path / "out"
    run_sweep(load_sweep(file), out)
    before = (out / TABLE).read_bytes()

    def stop(done: int, _: int) -> None:
        if done == 38:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_sweep(load_sweep(many), out, progress=stop)
    assert (out / TABLE).read_bytes() == before
    assert len(run_sweep(load_sweep(many), out)) == 39


def test_where_every_point_fails_the_commonest_reason_is_told(file: Path, tmp_path: Path) -> None:
    """With its count and its first point; the exit code is that of a sweep without a result."""
    file.write_text(
        "base: base.yaml\ncases: [{gpu: h2000}]\ngrid: {deployment.serve.gpus: [1, 2], deployment.serve.tp: [1]}\n"
    )
    done = CliRunner().invoke(app, ["sweep", str(file), "--out", str(tmp_path / "out"), "--quiet"])
    assert done.exit_code == 1
    last = " ".join(done.output.split("every point failed; ")[1].split())
    assert last.startswith("2 of 3 with: deployment.serve: does not fit: ") and last.endswith(
        "(first: point 0)"
    )


@pytest.mark.parametrize(
    ("errors", "says"),
    [
        (["a.yaml:3:14: gpu: unknown gpu 'x'; expected y", "a.yaml:4:14: gpu: unknown gpu 'x'; expected y"],
         "all with: gpu: unknown gpu 'x' (first: point 4)"),
        (["other", "12.5 GB missing", "7 GB missing"], "2 of 3 with: 12.5 GB missing (first: point 5)"),
        (["its worker died, twice"], "all with: its worker died, twice (first: point 4)"),
        (["one", "other"], "1 of 2 with: one (first: point 4)"),
    ],
)  # fmt: skip
def test_reasons_differ_by_more_than_their_place_and_their_numbers(errors: list[str], says: str) -> None:
    failed = pd.DataFrame({"point": range(4, 4 + len(errors)), "error": errors})
    assert commonest(failed) == says


def test_the_base_takes_overrides_that_no_point_varies(file: Path) -> None:
    changed = load_sweep(file, ["duration_s=7"])
    assert {changed.scenario(point).duration_s for point in changed.points} == {7}
    with pytest.raises(ScenarioError, match=r"--set router: every point has a value of its own"):
        load_sweep(file, ["router=random"])
    with pytest.raises(ScenarioError, match=r"--set rooter: .*did you mean 'router'"):
        load_sweep(file, ["rooter=random"])
