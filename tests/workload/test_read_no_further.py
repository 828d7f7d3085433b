"""A trace is read no further than a run needs, and what the run gets is what the whole file would have given."""

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trace_text import HEADER

import sim
from sim.scenario.errors import DeploymentError, ScenarioError
from sim.workload import reading, requests, trace, unpacking
from sim.workload.stream import RequestStream

ROWS = [(2.0 * n, 100 + n % 7, 1 + n % 5) for n in range(40_000)]


def write(folder: Path, name: str, rows: list[tuple[float, int, int]]) -> Path:
    keys = HEADER.strip().split(",")
    if name.endswith(".parquet"):
        pq.write_table(
            pa.table(dict(zip(keys, zip(*rows, strict=True), strict=True))), folder / name, row_group_size=100
        )
        return folder / name
    text = HEADER + "".join(f"{t!r},{i},{o}\n" for t, i, o in rows)
    if ".jsonl" in name:
        text = "".join(json.dumps(dict(zip(keys, row, strict=True))) + "\n" for row in rows)
    (folder / name).write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return folder / name


def run_of(file: Path, wanted: int | None, **more: Any) -> RequestStream:
    data = {
        "model": "deepseek-v2-lite", "gpu": "h200_sxm", "deployment": {"serve": {"gpus": 1}},
        "workload": {"trace": str(file), "time_unit": "s", "requests": wanted, **more},
    }  # fmt: skip
    return requests(sim.load(data), 0)


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.jsonl", "t.parquet"])
@pytest.mark.parametrize(
    "more", [{}, {"arrivals": {"poisson": {"rate_per_s": 3}}}], ids=["own times", "arrivals"]
)
def test_a_long_file_is_read_no_further_than_needed(tmp_path: Path, name: str, more: dict[str, Any]) -> None:
    file = write(tmp_path, name, ROWS)
    got = run_of(file, 50, **more)
    assert got.prompts.input_tokens.tolist() == [row[1] for row in ROWS[:50]]
    assert any("read no further" in note and "taken to rise beyond" in note for note in got.notes)
    read = trace.load(str(file), 0, time_unit="s", most=50)
    assert isinstance(read, trace.Trace) and len(read.prompts) < len(ROWS) and not read.whole
    assert (
        len(run_of(file, None, **({} if not more else more | {})).prompts) == len(ROWS) if not more else True
    )


@given(
    rows=st.lists(st.tuples(st.floats(0, 100), st.integers(1, 99), st.integers(0, 3)), min_size=1, max_size=40),
    rising=st.booleans(), wanted=st.integers(1, 12), name=st.sampled_from(["t.csv", "t.jsonl", "t.parquet"]),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_the_first_requests_are_those_of_the_whole_file(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[float, int, int]],
    rising: bool,
    wanted: int,
    name: str,
) -> None:
    """Pieces of some bytes, no least number of rows: times that go back at once, or failures, make it read on."""
    rows = sorted(rows, key=lambda row: row[0]) if rising else [(101.0, 5, 1), (50.0, 5, 0), *rows]
    file = write(tmp_path_factory.mktemp("t"), name, rows)
    answers = []
    for piece, least, batch in ((unpacking.PIECE_BYTES, trace.LEAST_ROWS, reading.BATCH_ROWS), (16, 1, 2)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(unpacking, "PIECE_BYTES", piece)
            patch.setattr(trace, "LEAST_ROWS", least)
            patch.setattr(reading, "BATCH_ROWS", batch)
            trace._known.cache_clear()
            try:
                got = run_of(file, wanted)
                answers.append((got.arrival_s.tolist(), got.prompts.input_tokens.tolist()))
            except ScenarioError as error:
                answers.append(("", str(error)))
    assert answers[0] == answers[1]


def test_a_file_that_nobody_could_read_whole_gives_its_first_requests(tmp_path: Path) -> None:
    """Four million rows are more than a table may hold, and the packed ones more than a table packs to."""
    text = HEADER + "".join(f"{t},{i},{o}\n" for t, i, o in ROWS) + "80000.0,1,1\n" * 4_000_000
    for name, content in (("t.csv", text.encode()), ("t.csv.gz", gzip.compress(text.encode(), 1))):
        (tmp_path / name).write_bytes(content)
        assert run_of(tmp_path / name, 50).prompts.input_tokens.tolist() == [row[1] for row in ROWS[:50]]
        with pytest.raises(ScenarioError, match=r"at most|more than"):
            run_of(tmp_path / name, None)


def test_a_quoted_cell_that_is_cut_is_not_broken(tmp_path: Path) -> None:
    rows = "".join(f'{t},{i},{o},"one\ntwo"\n' for t, i, o in ROWS)
    (tmp_path / "t.csv").write_text(HEADER.strip() + ",said\n" + rows)
    assert len(run_of(tmp_path / "t.csv", 50).prompts) == 50


def test_it_is_parsed_once_for_several_counts_and_once_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, parsed = write(tmp_path, "t.csv", ROWS), []
    monkeypatch.setattr(trace, "read", lambda path, *rows: parsed.append(rows) or reading.read(path, *rows))
    for wanted in (10, 50, None, 200, None):
        run_of(file, wanted)
    assert len(parsed) == 2


MOONCAKE_HEADER = "timestamp,input_length,output_length\n"


def test_a_unit_that_only_later_rows_tell_is_told_by_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole numbers under Mooncake's names count milliseconds, which here would be 2,000 requests a second; fractions,
    of which the first is in row 12,001, count seconds."""
    times = [0.5 * (n // 2 * 2) if n < 12_000 else 0.5 * n + 0.25 for n in range(13_000)]
    text = MOONCAKE_HEADER + "".join(f"{t:g},{100 + n % 7},5\n" for n, t in enumerate(times))
    (tmp_path / "t.csv").write_text(text)
    monkeypatch.setattr(unpacking, "PIECE_BYTES", 1000)
    got = run_of(tmp_path / "t.csv", 100, time_unit=None)
    assert got.arrival_s.tolist() == times[:100]
    assert not any("read no further" in note for note in got.notes)


def test_a_unit_that_no_row_tells_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(MOONCAKE_HEADER + "".join(f"{n // 2},100,5\n" for n in range(12_000)))
    with pytest.raises(DeploymentError, match=r"what does timestamp.* count.* 12,000 requests"):
        run_of(tmp_path / "t.csv", 100, time_unit=None)


def test_clients_are_judged_all_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first ones, more than are read at first, send nothing; the last one does."""
    silent = {"client": 0, "window_s": 10.0, "windows": [], "lengths": []}
    last = silent | {
        "windows": [[0.0, 100, "gamma", 1.0]],
        "lengths": [{"from_s": 0.0, "input": [[100], [1.0]], "output": [[5], [1.0]]}],
    }
    rows = [json.dumps(silent)] * 12_000 + [json.dumps(last)]
    (tmp_path / "t.jsonl").write_text("\n".join(rows) + "\n")
    monkeypatch.setattr(unpacking, "PIECE_BYTES", 1000)
    assert len(run_of(tmp_path / "t.jsonl", 50, time_unit=None).prompts) == 50
