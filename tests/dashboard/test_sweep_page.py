"""Sweep results on the Capacity page: read as data, drawn, and each point opened in What-if."""

import io
from pathlib import Path
from urllib.parse import unquote

import pandas as pd
import pytest
from opened_pages import opened, sound, tables

import sim
from dashboard.data import sweeps
from dashboard.data.problems import BadInput
from dashboard.settings import DEFAULTS, scenario_of, value_of
from sim.report.sweep import against_chart, sweep_table

BASE = """
model: deepseek-v3.2
gpu: h200_sxm
profile: analytic
deployment: {serve: {gpus: 8, tp: 8, max_batch_per_gpu: 16}}
workload:
  arrivals: {poisson: {rate_per_s: 4}}
  lengths: {input: {constant: 300}, output: {constant: 8}}
duration_s: 30
"""
SWEEP = """
base: base.yaml
grid: {deployment.serve.max_batch_per_gpu: [4, 8], workload.arrivals.poisson.rate_per_s: [2.5, 5.0]}
cases: [{gpu: b200_sxm}, {gpu: h100_sxm, deployment.serve.tp: 4}, {deployment.serve.chunk_tokens: 2048}]
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "base.yaml").write_text(BASE)
    (folder / "sweep.yaml").write_text(SWEEP)
    sim.sweep(folder / "sweep.yaml", out=folder / "out")
    return folder / "out" / sweeps.FILE


def test_a_point_opens_in_what_if_with_its_overrides(file: Path) -> None:
    sweep = sweeps.read(file.read_bytes())
    spelled = []
    for row in range(len(sweep.points)):
        address = sweeps.what_if(sweep, row)
        assert address.lost == ("profile",)
        parts = (part.partition("=") for part in address.query.split("&"))
        settings = {**DEFAULTS, **{key: value_of(key, unquote(text)) for key, _, text in parts}}
        spelled.append(scenario_of(settings))
    serve = [one["deployment"]["serve"] for one in spelled]
    rates = [one["workload"]["arrivals"]["poisson"]["rate_per_s"] for one in spelled]
    assert [pool["max_batch_per_gpu"] for pool in serve] == [4, 4, 8, 8, 16, 16, 16]
    assert rates == [2.5, 5.0, 2.5, 5.0, 4.0, 4.0, 4.0]
    assert [one["gpu"] for one in spelled[4:6]] == ["b200_sxm", "h100_sxm"] and serve[5]["tp"] == 4
    assert serve[6]["chunk_tokens"] == 2048, "by the field for other keys"


def test_the_page_shows_every_point_and_its_way_to_what_if(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeps, "found", lambda: {"out/mine/sweep.parquet": file})
    app = sound(opened("capacity", cap_view="Sweep results"))
    [rows] = [table for table in tables(app) if "error" in table[0]]
    assert [row["point"] for row in rows] == [str(n) for n in range(7)]
    assert rows[0]["deployment.serve.max_batch_per_gpu"] == "4" and rows[4]["gpu"] == "b200_sxm"
    assert "does not fit" in rows[5]["error"] and rows[5]["GPUs"] == "-"
    assert len(app.get("plotly_chart")) == 2
    assert any("/what_if?" in one.value and "r=2.5" in one.value for one in app.markdown)
    sound(app.selectbox(key="sweep_point").set_value(1).run())
    assert any("/what_if?" in one.value and "b=4" in one.value for one in app.markdown)
    for by in ("gpu", "nothing"):
        sound(app.selectbox(key="sweep_by").set_value(by).run())


def test_without_a_result_the_page_says_where_one_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeps, "found", dict)
    app = sound(opened("capacity", cap_view="Sweep results"))
    assert any("tokenworks sweep" in one.value for one in app.info) and not app.error


def written(table: pd.DataFrame) -> bytes:
    raw = io.BytesIO()
    table.to_parquet(raw)
    return raw.getvalue()


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"PAR1 nothing", "arquet"),
        (written(pd.DataFrame({"x": [1]})), "no column 'point'"),
        (written(pd.DataFrame({"seed": [1], "point": [0], "error": [None]})), "'seed' before 'point'"),
        (written(pd.DataFrame({"point": range(30_000), "seed": 0, "error": None})), "a page shows up to 20,000"),
    ],
    ids=["no Parquet", "another table", "columns in another order", "too long"],
)  # fmt: skip
def test_what_is_no_sweep_is_refused_in_words(raw: bytes, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        sweeps.read(raw)


def test_a_file_that_names_files_of_this_machine_is_not_followed(file: Path) -> None:
    points = pd.read_parquet(file)
    points.attrs["base"] = BASE.replace("profile: analytic", "profile: /etc/passwd")
    with pytest.raises(BadInput, match="cannot name files"):
        sweeps.what_if(sweeps.read(written(points)), 0)
    points = pd.read_parquet(file).assign(gpu="/etc/passwd.yaml")
    with pytest.raises(BadInput, match="cannot name files"):
        sweeps.what_if(sweeps.read(written(points)), 0)


def test_a_file_without_its_base_is_shown_all_the_same(file: Path) -> None:
    points = pd.read_parquet(file)
    points.attrs.clear()
    sweep = sweeps.read(written(points))
    assert len(sweeps.table(sweep)) == 7
    with pytest.raises(BadInput, match="start from"):
        sweeps.what_if(sweep, 0)


def test_points_of_many_values_have_one_colour(file: Path) -> None:
    table = sweep_table(pd.read_parquet(file))
    many = pd.concat([table.assign(gpu=str(n)) for n in range(20)], ignore_index=True)
    assert len(against_chart(many, ["gpu"], "gpu", "TPOT p99, s").figure.data) == 1
    assert len(against_chart(table, ["gpu"], "gpu", "TPOT p99, s").figure.data) == 2, "without and with"
