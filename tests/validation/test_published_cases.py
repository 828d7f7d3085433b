"""The published cases in `scenarios/published`: their files, their bands, and the listing that is shipped of them."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sim.cli import app
from sim.scenario.errors import ScenarioError
from sim.validation.bands import MISSED, bands
from sim.validation.case import BOUND, Case
from sim.validation.case_file import read_case
from sim.validation.digest import FILE as DIGEST
from sim.validation.digest import cases_of, rounded
from sim.validation.points import points
from sim.validation.published import shipped
from sim.validation.report import text
from sim.validation.table import SHIPPED, validate

ROOT = Path(__file__).parents[2]
QUICK = [id for id, file in shipped().items() if file.head.quick]
AGAIN = "simulate it anew with `python -m sim.validation.digest {}`, then `python -m sim.validation.report`"


def test_every_file_is_a_case_of_its_own() -> None:
    files = sorted((ROOT / "scenarios" / "published").glob("*.yaml"))
    assert len(files) == len(shipped()) >= 24
    for file in shipped().values():
        for figure in file.published:
            assert (figure.band is None) == figure.metric.startswith(BOUND)


@pytest.fixture(scope="module")
def digest() -> dict[tuple[str, str, str], Case]:
    found = cases_of(json.loads(DIGEST.read_text(encoding="utf-8")))
    return {(case.id, case.metric, case.point): case for case in found}


def test_the_quick_cases_keep_their_bands_and_what_was_shipped(
    digest: dict[tuple[str, str, str], Case],
) -> None:
    """Outside are those of which the files say so, and no others: one that comes back inside loses its `missed`."""
    wanted = [*QUICK, *(point["id"] for point in points()["points"])]
    for case in validate(SHIPPED, wanted, published=True).cases:
        assert case.holds == (not case.missed), (
            f"{case.id} {case.metric}: {case.error:+.1%}, band {case.band}"
        )
        told = digest[case.id, case.metric, case.point]
        assert rounded(case.simulated) == pytest.approx(told.simulated, rel=2e-3), AGAIN.format(case.id)
        assert (
            told.band == pytest.approx(case.band, rel=1e-3, nan_ok=True)
            if None not in case.band
            else told.band
        )


def test_the_others_were_where_their_files_say(digest: dict[tuple[str, str, str], Case]) -> None:
    slow = [case for case in digest.values() if case.id in shipped() and case.id not in QUICK]
    assert {case.id for case in slow} == {id for id in shipped() if id not in QUICK}
    for case in slow:
        assert case.holds == (not case.missed), (
            f"{case.id} {case.metric}: {case.error:+.1%}, band {case.band}"
        )


def test_what_is_known_of_a_miss_belongs_to_one(digest: dict[tuple[str, str, str], Case]) -> None:
    outside = {case.id for case in digest.values() if not case.holds}
    assert set(bands()[MISSED]) <= outside


def test_the_committed_text_is_what_the_command_writes() -> None:
    data = json.loads(DIGEST.read_text(encoding="utf-8"))
    assert (ROOT / "VALIDATION.md").read_text(encoding="utf-8") == text(data), AGAIN.format("")


GOOD = """
model: deepseek-v3
gpu: h200
engine: sglang
deployment: {serve: {gpus: 8, tp: 8}}
workload: {arrivals: {all_at_once: {}}, lengths: {input: {constant: 8}, output: {constant: 8}}, requests: 1}
case: {id: MINE, layout: mine, point: "decode of 1 at 64", step: {phase: decode, batch: 1, context: 64}}
published:
  - {metric: tpot, value: 0.01, unit: s, source: me, date: "2026", quality: measured, band: 100.0, why: wide}
"""


def written(folder: Path, old: str = "", new: str = "") -> Path:
    path = folder / "mine.yaml"
    assert old in GOOD
    path.write_text(GOOD.replace(old, new), encoding="utf-8")
    return path


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["validate", str(written(tmp_path)), "--json"])
    [case] = json.loads(result.stdout.splitlines()[-1])["cases"]
    assert result.exit_code == 0 and case["id"] == "MINE" and case["why"] == "wide"
    assert case["error"] == pytest.approx(case["simulated"] / 0.01 - 1)


def test_a_case_outside_its_band_is_exit_code_1(tmp_path: Path) -> None:
    path = written(tmp_path, "band: 100.0", "band: 0.001")
    assert CliRunner().invoke(app, ["validate", str(path)]).exit_code == 1


def test_a_run_of_ones_own_has_rows_whatever_its_file_says(tmp_path: Path) -> None:
    path = written(tmp_path, ", step: {phase: decode, batch: 1, context: 64}", "")
    found = []
    for metrics in ("rows", "summary"):
        path.write_text(path.read_text() + f"metrics: {metrics}\n", encoding="utf-8")
        result = CliRunner().invoke(app, ["validate", str(path), "--json"])
        assert result.exit_code == 0, result.output
        found.append(json.loads(result.stdout.splitlines()[-1])["cases"])
        path.write_text(path.read_text().replace(f"metrics: {metrics}\n", ""), encoding="utf-8")
    assert found[0] == found[1] and found[0][0]["id"] == "MINE"


def test_a_limit_lies_on_one_side(tmp_path: Path) -> None:
    limit = ("metric: tpot, value: 0.01", "metric: bound_tpot, value: 0.000001")
    path = written(tmp_path, *limit)
    path.write_text(path.read_text().replace("band: 100.0", "lies: above"), encoding="utf-8")
    assert CliRunner().invoke(app, ["validate", str(path)]).exit_code == 0
    path.write_text(path.read_text().replace("above", "below"), encoding="utf-8")
    assert CliRunner().invoke(app, ["validate", str(path)]).exit_code == 1


@pytest.mark.parametrize(
    ("old", "new", "says", "line"),
    [
        ("metric: tpot", "metric: tpott", "did you mean 'tpot'?", 9),
        ("band: 100.0", "lies: above", "expected `band`, not `lies`", 9),
        ("unit: s, ", "", "required and missing", 9),
        ("quality: measured", "quality: mesured", "did you mean 'measured'?", 9),
        ("phase: decode", "phase: decoding", "expected one of", 7),
        ("gpus: 8, tp: 8", "gpu: 8, tp: 8", "did you mean 'gpus'?", 5),
    ],
)
def test_a_mistake_is_named_with_its_place(tmp_path: Path, old: str, new: str, says: str, line: int) -> None:
    path = written(tmp_path, old, new)
    with pytest.raises(ScenarioError) as error:
        read_case(path)
    assert says in str(error.value) and error.value.problems[0].line == line
    assert CliRunner().invoke(app, ["validate", str(path)]).exit_code == 2


def test_a_run_says_how_many_requests_it_had(tmp_path: Path) -> None:
    path = written(tmp_path, ", step: {phase: decode, batch: 1, context: 64}", "")
    path.write_text(path.read_text().replace(", requests: 1}", "}\nduration_s: 10"), encoding="utf-8")
    with pytest.raises(ScenarioError, match=r"mine.yaml:6:.*needs `requests`"):
        read_case(path)


def test_a_day_needs_units_of_two_pools_and_averages(tmp_path: Path) -> None:
    text = (ROOT / "scenarios" / "published" / "deepseek_24h.yaml").read_text(encoding="utf-8")
    path = tmp_path / "day.yaml"
    changed = text.replace("{input: {constant: 4383}", "{input: {uniform: [1, 8765]}").replace(
        "[40, 50", "[50, 40"
    )
    path.write_text(changed, encoding="utf-8")
    with pytest.raises(ScenarioError) as error:
        read_case(path)
    assert "lengths that are `constant`" in str(error.value) and "expected ascending" in str(error.value)
