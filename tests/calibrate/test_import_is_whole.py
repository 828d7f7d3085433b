"""An import that fails or is killed leaves the earlier profile; one that succeeds takes its place at once."""

import multiprocessing
import os
import signal
from pathlib import Path

import pytest
from typer.testing import CliRunner

from calibrate import fit, import_command
from calibrate.cli import app
from calibrate.importers import aiconfigurator, v4
from calibrate.store import save_fits, save_profile
from sim.catalog.profiles import HEADER
from sim.cost.fits import FIT
from sim.cost.profile import load_profile

SHIPPED = "h200_sxm/vllm"
TABLES = list(load_profile(SHIPPED).tables("gemm"))
HEAD = {"gpu": "h200_sxm", "engine": "vllm", "attribution": {"source": "a test"}}
V4 = v4.MODELS[0]


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A profile that was imported before, with that of another model inside."""
    place = tmp_path / "out" / "h200_sxm" / "vllm"
    for folder in (place, place / V4):
        save_profile(folder, HEAD, TABLES[:1])
        (folder / "left.parquet").write_text("of the earlier import")
    monkeypatch.setattr(aiconfigurator, "read_tables", lambda *_: list(TABLES))
    monkeypatch.setattr(aiconfigurator, "header", lambda *_: dict(HEAD))
    monkeypatch.setattr(import_command.Mending, "mended", lambda _, tables: (tables, []))
    monkeypatch.setattr(fit, "fit_profile", lambda *_: {table.key: table.fit for table in TABLES})
    return place


def contents(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def asked(place: Path) -> list[str]:
    out = str(place.parent.parent)
    return [
        "import",
        "--from",
        out,
        "--out",
        out,
        "--gpu",
        "h200_sxm",
        "--engine",
        "vllm",
        "--model",
        "deepseek-v3.2",
    ]


@pytest.mark.parametrize("step", ["save_profile", "save_fits", "read_profile"])
def test_a_failure_leaves_the_earlier_profile(old: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    before = contents(old)

    def fails(folder: Path, *_: object) -> None:
        (folder / HEADER).write_text("half of it")
        raise ValueError("no room")

    monkeypatch.setattr(import_command, step, fails)
    assert CliRunner().invoke(app, asked(old)).exit_code == 2
    assert contents(old) == before
    assert [file.name for file in old.parent.iterdir()] == ["vllm"], "nothing is left beside it"


def test_an_import_takes_the_place_of_the_earlier_one_and_keeps_other_models(old: Path) -> None:
    inside = contents(old / V4)
    told = CliRunner().invoke(app, asked(old))
    assert told.exit_code == 0, told.output
    assert {file.name for file in old.iterdir()} == {HEADER, FIT, "gemm.parquet", V4}
    assert contents(old / V4) == inside


def dies(folder: Path, *_: object) -> None:
    (folder / HEADER).write_text("half of it")
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_kill_leaves_the_earlier_profile_and_the_next_import_clears(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(old)
    with monkeypatch.context() as patch:
        patch.setattr(import_command, "save_fits", dies)
        process = multiprocessing.get_context("fork").Process(
            target=CliRunner().invoke, args=(app, asked(old))
        )
        process.start()
        process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert contents(old) == before
    assert CliRunner().invoke(app, asked(old)).exit_code == 0
    assert [file.name for file in old.parent.iterdir()] == ["vllm"]
    save_fits(old, {})
    assert {file.name for file in old.iterdir()} == {HEADER, FIT, "gemm.parquet", V4}
