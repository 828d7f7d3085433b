"""A result that was saved is the same when it is loaded."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from small_run import small_run

import sim
from sim.result import Result, load
from sim.scenario.schema import Scenario

SMALL = {
    "model": "deepseek-v3.2", "gpu": "h200_sxm", "deployment": {"serve": {"gpus": 8, "ep": 8}},
    "workload": {
        "requests": 3, "arrivals": {"poisson": {"rate_per_s": 2}},
        "lengths": {"input": {"constant": 100}, "output": {"constant": 5}},
    },
}  # fmt: skip


class Cost:
    def json(self) -> dict[str, Any]:
        return {"usd_per_hour": 48.0}


def test_round_trip(tmp_path: Path) -> None:
    result = Result(small_run(), Cost())
    result.save(tmp_path / "out" / "run")
    folder = tmp_path / "out" / "run"
    assert sorted(path.name for path in folder.iterdir()) == ["requests.parquet", "run.json", "scenario.yaml"]
    loaded = load(folder)
    assert loaded.json() == result.json()
    assert loaded.scenario == small_run().scenario
    assert loaded.requests.equals(result.requests)
    # The scenario as applied is itself a scenario.
    assert Scenario.model_validate(yaml.safe_load((folder / "scenario.yaml").read_text())) == loaded.scenario


def test_the_table_has_a_row_per_request() -> None:
    table = Result(small_run(), Cost()).requests
    assert table["id"].tolist() == [0, 1, 2, 3]
    assert table["ttft_s"].tolist()[:3] == [7.0, 3.0, 9.0]
    assert table["e2e_s"].tolist()[:3] == [17.0, 3.0, 13.0]
    assert table["tpot_s"].tolist()[0] == 1.0
    assert np.isnan(table["tpot_s"][1]) and np.isnan(table["ttft_s"][3])
    assert table["counted"].tolist() == [False, True, True, True]
    assert table["rejected"].tolist() == [False, False, False, True]


def test_broken_invariants_are_in_the_result() -> None:
    record = small_run(invariants=["decode worker 0 stands still"])
    record.pools["prefill"].kv_blocks_leaked = 1
    result = Result(record, Cost())
    assert result.record.invariants == [
        "decode worker 0 stands still",
        "prefill: 1 KV blocks were never given back",
    ]
    assert result.json()["invariants"] == result.record.invariants
    assert record.invariants == ["decode worker 0 stands still"], "the record that was given stays as it was"


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Result(small_run(), Cost()).save(tmp_path)
    before = (tmp_path / "run.json").read_text()
    changed = Result(small_run(seed=8), Cost())

    def fail(path: Path, *_: object, **__: object) -> None:
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(type(changed.requests), "to_parquet", lambda self, path, **kw: fail(path))
    with pytest.raises(OSError, match="disk full"):
        changed.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "requests.parquet",
        "run.json",
        "scenario.yaml",
    ]
    assert json.loads((tmp_path / "run.json").read_text())["seed"] == 7
    assert (tmp_path / "run.json").read_text() == before


def test_nothing_to_load(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load(tmp_path)


class Killed(BaseException):
    """What ends `save` here, as a kill would."""


def killed_after(patch: pytest.MonkeyPatch, changes: int) -> None:
    """So many files are put in place, or removed."""
    left = [None] * changes
    for name in ("replace", "unlink"):
        change = getattr(Path, name)

        def counted(self: Path, *to: Any, change: Any = change, **how: Any) -> Any:
            if not left:
                raise Killed
            left.pop()
            return change(self, *to, **how)

        patch.setattr(Path, name, counted)


@pytest.mark.parametrize("kinds", [("rows", "summary"), ("summary", "rows"), ("rows", "rows")])
def test_whenever_it_is_killed_the_files_of_run_json_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kinds: tuple[str, str]
) -> None:
    """Before each change of the folder in turn: a file that takes its place, or goes."""
    old, new = (
        sim.simulate(sim.load(SMALL | {"metrics": kind}), seed=seed) for seed, kind in enumerate(kinds)
    )
    for done in range(20):
        folder = tmp_path / str(done)
        old.save(folder)
        try:
            with monkeypatch.context() as patch:
                killed_after(patch, done)
                new.save(folder)
            break
        except Killed:
            assert load(folder).json()["seed"] in (0, 1)
    assert done == 4, "three files and the table of the other kind"
    assert load(folder).json() == new.json()
    table = "requests.parquet" if kinds[1] == "rows" else "histograms.parquet"
    assert {file.name for file in folder.iterdir()} == {table, "scenario.yaml", "run.json"}
