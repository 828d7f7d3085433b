"""What a command leaves is the old result or the new one, whenever it is killed, and nothing beside it."""

import fcntl
import multiprocessing
import os
import random
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sim import saving
from sim.cli import app
from sim.cli.scenarios import _name
from sim.saving import PREFIX, whole_folder, write_whole

NAMES = ("requests.parquet", "scenario.yaml", "run.json", "report.html")
SCENARIO = """
model: deepseek-v3.2
gpu: h200_sxm
deployment: {serve: {gpus: 8, ep: 8}}
workload: {requests: 3, arrivals: {poisson: {rate_per_s: 2}}, lengths: {input: {constant: 100}, output: {constant: 5}}}
"""


def write_without_end(target: Path, start: int) -> None:
    for generation in range(start, 10**9):
        with whole_folder(target, last="run.json") as made:
            for name in NAMES:
                (made / name).write_text(str(generation) * 1000)


def test_a_kill_leaves_one_whole_result(tmp_path: Path) -> None:
    rng, target = random.Random(1), tmp_path / "out"
    for moment in range(30):
        process = multiprocessing.get_context("fork").Process(
            target=write_without_end, args=(target, moment * 10**6)
        )
        process.start()
        time.sleep(0.005 + rng.random() * 0.02)
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
        if target.exists():
            found = {file.read_text() for file in target.iterdir()}
            assert len(found) == 1 and {file.name for file in target.iterdir()} == set(NAMES)
    with whole_folder(target, last="run.json") as made:
        (made / "run.json").write_text("last")
    assert {file.name for file in tmp_path.iterdir()} == {"out"}, "what the killed ones left is cleared"


@pytest.mark.parametrize("can_exchange", [True, False])
def test_a_folder_with_files_of_others_keeps_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, can_exchange: bool
) -> None:
    if not can_exchange:
        monkeypatch.setattr(saving, "_exchanged", lambda *_: False)
    moved: list[str] = []
    replace = Path.replace
    monkeypatch.setattr(Path, "replace", lambda self, to: (moved.append(self.name), replace(self, to))[1])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    for generation in ("old", "new"):
        with whole_folder(tmp_path / "out", last="run.json") as made:
            for name in NAMES:
                (made / name).write_text(generation)
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"
    assert {(tmp_path / "out" / name).read_text() for name in NAMES} == {"new"}
    assert moved[3] == moved[7] == "run.json", "whoever finds the answer finds the rest"


@pytest.mark.parametrize("where", ["beside a file of others", "in the working folder"])
def test_where_files_are_moved_singly_what_an_earlier_result_left_goes_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    out, others = tmp_path / "out", {"notes.txt", "mine.parquet", "report.html"}
    out.mkdir()
    if where == "in the working folder":
        monkeypatch.chdir(out)
    for name in others:
        (out / name).write_text("mine")
    gone: list[str] = []
    unlink = Path.unlink

    def watched(self: Path, missing_ok: bool = False) -> None:
        gone.append(f"{self.name} of {(out / 'run.json').read_text()}")
        unlink(self, missing_ok)

    monkeypatch.setattr(Path, "unlink", watched)
    for table in ("requests", "histograms"):
        with whole_folder(out, "run.json", ("report.html", "requests.json", "*.parquet")) as made:
            for name in (f"{table}.json", "run.json"):
                (made / name).write_text(table)
        left = {file.name for file in out.iterdir()}
        assert left - others == {f"{table}.json", "run.json"}
        assert ("report.html" in left) == (table == "requests"), "before there was a result it was not of one"
    assert sorted(gone) == ["report.html of histograms", "requests.json of histograms"]
    assert (out / "mine.parquet").read_text() == "mine"


def test_a_folder_beside_a_file_of_others_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    for generation in ("old", "new"):
        with whole_folder(tmp_path / "out", last="profile.yaml") as made:
            (made / "inner").mkdir()
            (made / "inner" / generation).write_text(generation)
            (made / "profile.yaml").write_text(generation)
    assert [file.name for file in (tmp_path / "out" / "inner").iterdir()] == ["new"]
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"notes.txt", "inner", "profile.yaml"}


def test_a_failure_leaves_the_old_result(tmp_path: Path) -> None:
    with whole_folder(tmp_path / "out", last="run.json") as made:
        (made / "run.json").write_text("old")
    with pytest.raises(OSError, match="disk full"), whole_folder(tmp_path / "out", last="run.json") as made:
        (made / "run.json").write_text("new")
        raise OSError("disk full")
    assert (tmp_path / "out" / "run.json").read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


def test_the_working_folder_and_links_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    monkeypatch.chdir(tmp_path / "real")
    for target in (Path(), tmp_path / "link"):
        with whole_folder(target, last="a") as made:
            (made / "a").write_text(str(target))
        assert Path("a").read_text() == str(target)
    assert (tmp_path / "link").is_symlink()


@pytest.mark.parametrize(
    "odd", ["...yaml", "....yaml", "..yaml", "report.html.yaml", "comparison.json.yaml", ".hidden"]
)
def test_a_comparison_stays_inside_its_folder(tmp_path: Path, odd: str) -> None:
    name = _name(Path(odd), ())
    assert name == Path(name).name and name not in ("", ".", "..", "report.html", "comparison.json")
    inside = (tmp_path / "out" / name).resolve()
    assert inside.parent == (tmp_path / "out").resolve()


def test_compare_with_odd_names(tmp_path: Path) -> None:
    names = ("...yaml", "report.html.yaml")
    for name in names:
        (tmp_path / name).write_text(SCENARIO)
    out = tmp_path / "a" / "out"
    told = CliRunner().invoke(app, ["compare", *(str(tmp_path / name) for name in names), "--out", str(out)])
    assert told.exit_code == 0, told.output
    assert {file.name for file in out.iterdir()} == {
        "scenario",
        "report.html-2",
        "comparison.json",
        "report.html",
    }
    assert {file.name for file in tmp_path.iterdir()} == {"a", *names}


def rewrite_without_end(target: Path) -> None:
    for generation in range(10**9):
        write_whole(target, str(generation) * 1000)


def test_a_kill_leaves_one_whole_file(tmp_path: Path) -> None:
    rng, target = random.Random(1), tmp_path / "one.html"
    for _ in range(20):
        process = multiprocessing.get_context("fork").Process(target=rewrite_without_end, args=(target,))
        process.start()
        time.sleep(0.005 + rng.random() * 0.02)
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
        if target.exists():
            text = target.read_text()
            assert text == text[: len(text) // 1000] * 1000
    write_whole(target, "last")
    assert [file.name for file in tmp_path.iterdir()] == ["one.html"]


@pytest.mark.parametrize("moment", ["before it is opened", "before it is locked", "while it is locked"])
def test_a_folder_that_another_process_clears_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    cleared: list[str] = []
    flock, make = fcntl.flock, tempfile.mkdtemp

    def made(**where: Any) -> str:
        name = make(**where)
        if len(cleared) < 3 and moment == "before it is opened":
            saving.clear(tmp_path)
            cleared.append(name)
        return name

    def locked(descriptor: int, how: int) -> None:
        if len(cleared) < 3 and moment != "before it is opened":
            [folder] = tmp_path.glob(f"{PREFIX}*")
            folder.rmdir()
            cleared.append(folder.name)
            if moment == "while it is locked":
                raise BlockingIOError
        flock(descriptor, how)

    monkeypatch.setattr(tempfile, "mkdtemp", made)
    monkeypatch.setattr(fcntl, "flock", locked)
    write_whole(tmp_path / "a", "whole")
    assert len(cleared) == 3
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("a", "whole")]


def test_without_locks_a_result_is_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saving, "_locked", lambda _: None)
    write_whole(tmp_path / "a", "whole")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("a", "whole")]
