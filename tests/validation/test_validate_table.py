"""`tokenworks validate` on a small table, end to end."""

import json
from pathlib import Path

import pytest
from published_rows import table
from typer.testing import CliRunner

from sim.cli import app
from sim.validation.table import UnknownCase, validate

RUNNER = CliRunner()


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rows")
    return table(
        folder / "rows.csv", {}, {"date": "2026-05-01", "median_tpot_ms": 9.5}, {"disagg": 1}, {"conc": 8}
    )


def test_every_row_is_a_case_per_metric_or_skipped(rows: Path) -> None:
    found = validate(rows, max_prompts=20).json()
    assert [one["id"] for one in found["skipped"]] == ["C"]
    metrics = ["tpot", "ttft", "output_tput_per_gpu", "total_tput_per_gpu"]
    assert [(c["id"], c["metric"]) for c in found["cases"]] == [(id, m) for id in "ABD" for m in metrics]
    for one in found["cases"]:
        assert one["error"] == pytest.approx(one["simulated"] / one["published"] - 1)
        assert (one["band"], one["split"]) == (None, "test")
    assert found["median_abs_error"].keys() == {"overall", *metrics}
    assert found["p90_abs_error"]["tpot"] >= found["median_abs_error"]["tpot"] > 0
    # The same point on two days is simulated once, and explained once.
    same = [c["simulated"] for c in found["cases"] if c["metric"] == "tpot"]
    assert same[0] == same[1] != same[2]
    assert list(found["compositions"]) == ["A", "D"]
    made = found["compositions"]["A"]
    assert sum(made["seconds"].values()) == pytest.approx(same[0])
    assert sum(made["priced_by"].values()) == pytest.approx(1)


def test_the_same_seed_gives_the_same_in_other_processes(rows: Path) -> None:
    alone, together = (validate(rows, max_prompts=20, workers=n).json() for n in (1, 2))
    assert alone == together
    assert validate(rows, max_prompts=20, seed=1).json()["cases"] != alone["cases"]


def test_single_cases_can_be_asked_for(rows: Path) -> None:
    assert {case.id for case in validate(rows, ["D"], max_prompts=20).cases} == {"D"}
    with pytest.raises(UnknownCase, match="no case 'P'"):
        validate(rows, ["P"])


def test_the_command_prints_tables_and_json(rows: Path, tmp_path: Path) -> None:
    told = RUNNER.invoke(
        app,
        ["validate", "--table", str(rows), "--max-prompts", "20", "--json", "--out", str(tmp_path / "out")],
    )
    assert told.exit_code == 0
    data = json.loads(told.stdout.splitlines()[-1])
    assert data == json.loads((tmp_path / "out" / "validation.json").read_text())
    shown = RUNNER.invoke(app, ["validate", "--table", str(rows), "--max-prompts", "20"]).stdout
    for word in (
        "Absolute error",
        "Median error by layout",
        "Largest TPOT differences",
        "Skipped",
        "no layout",
    ):
        assert word in shown


def test_it_says_how_rows_were_started_and_what_was_not_read(tmp_path: Path) -> None:
    file = table(tmp_path / "t.csv", {"deployment_id": ""})
    names, row = file.read_text().splitlines()
    file.write_text(f"{names},rack\n{row},A7\n")
    told = RUNNER.invoke(app, ["validate", "--table", str(file), "--max-prompts", "20", "--json"])
    data = json.loads(told.stdout.splitlines()[-1])
    assert data["rows"] == {"inferencex_flags": 0, "engine_defaults": 1}
    assert data["ignored_columns"] == ["rack"] and data["cases"][0]["model"] == "deepseek-r1"
    assert "Rows with the engine's defaults and what their own columns say: 1;" in told.stderr
    assert "Columns that say nothing to the simulation: rack." in told.stderr


def test_bad_input_ends_with_exit_code_2(rows: Path, tmp_path: Path) -> None:
    (tmp_path / "no.csv").write_text("a\n1\n")
    assert RUNNER.invoke(app, ["validate", "--table", str(tmp_path / "no.csv")]).exit_code == 2
    assert RUNNER.invoke(app, ["validate", "nonsense", "--table", str(rows)]).exit_code == 2
    assert RUNNER.invoke(app, ["validate", "--table", str(rows), "--max-prompts", "0"]).exit_code == 2
