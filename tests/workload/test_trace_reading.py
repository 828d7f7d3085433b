"""Traces of users: what a sound file is read as, whatever its kind."""

import gzip
import json
import lzma
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trace_text import HEADER, load

from sim.scenario.errors import ScenarioError
from sim.workload import trace


def test_a_plain_file(tmp_path: Path) -> None:
    got = load(tmp_path, HEADER + "1700000000.5,100,7\n1700000001.75,1e3,9.0\n\n")
    assert got.arrival_s is not None
    assert got.arrival_s.tolist() == [0.0, 1.25]
    assert got.prompts.input_tokens.tolist() == [100, 1000]
    assert got.prompts.output_tokens.tolist() == [7, 9]


@pytest.mark.parametrize("ending", ["", ".gz", ".xz"])
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_every_kind_of_file_reads_the_same(tmp_path: Path, kind: str, ending: str) -> None:
    rows = [(0.5, 100, 7), (2.0, 20, 1)]
    keys = HEADER.strip().split(",")
    text = {
        "csv": HEADER + "".join(f"{t},{i},{o}\r\n" for t, i, o in rows),
        "jsonl": "".join(json.dumps(dict(zip(keys, row, strict=True))) + "\n" for row in rows),
    }[kind]
    pack = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress}[ending]
    (tmp_path / f"t.{kind}{ending}").write_bytes(pack(text.encode("utf-8-sig")))
    got = trace.load(f"t.{kind}{ending}", 0, tmp_path)
    assert got.arrival_s is not None
    assert got.arrival_s.tolist() == [0.0, 1.5]
    assert got.prompts.input_tokens.tolist() == [100, 20]


def test_a_file_may_leave_out_the_times(tmp_path: Path) -> None:
    got = load(tmp_path, "input_tokens,output_tokens\n10,1\n")
    assert got.arrival_s is None


def test_times_that_go_back_are_sorted_and_said(tmp_path: Path) -> None:
    got = load(tmp_path, HEADER + "5,50,1\n3,30,1\n3,31,1\n4,40,1\n1,10,1\n")
    assert got.arrival_s is not None
    assert got.arrival_s.tolist() == [0, 2, 2, 3, 4]
    assert got.prompts.input_tokens.tolist() == [10, 30, 31, 40, 50]
    assert got.notes == ("t.csv: times go back at line 3 (2 times in all); sorted",)


def test_requests_that_failed_are_left_out_and_said(tmp_path: Path) -> None:
    got = load(tmp_path, HEADER + "1,5,0\n2,6,1\n3,7,0\n")
    assert got.prompts.input_tokens.tolist() == [6]
    assert got.arrival_s is not None
    assert got.arrival_s.tolist() == [0.0]
    assert got.notes == ("t.csv: 2 of 3 requests have no output tokens; left out",)


def test_dates_count_from_the_first_request_across_zones(tmp_path: Path) -> None:
    text = "TIMESTAMP,ContextTokens,GeneratedTokens\n2024-02-29T23:59:59+00:00,1,1\n2024-03-01 01:00:00.25+01:00,2,1\n"
    got = load(tmp_path, text)
    assert got.arrival_s is not None
    assert got.arrival_s.tolist() == [0.0, 1.25]


@given(
    rows=st.lists(
        st.tuples(st.floats(-1e6, 1e6), st.integers(1, 10**6), st.integers(0, 10**6)), min_size=1, max_size=30
    ),
    as_json=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_what_is_written_is_what_is_read(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[float, int, int]], as_json: bool
) -> None:
    """Against the plainest reading: stable sort by time, drop failures, count from the first that is left."""
    keys = HEADER.strip().split(",")
    text = (
        "".join(json.dumps(dict(zip(keys, row, strict=True))) + "\n" for row in rows)
        if as_json
        else HEADER + "".join(f"{t!r},{i},{o}\n" for t, i, o in rows)
    )
    folder, name = tmp_path_factory.mktemp("trace"), "t.jsonl" if as_json else "t.csv"
    expected = [row for row in sorted(rows, key=lambda row: row[0]) if row[2] > 0]
    if not expected:
        with pytest.raises(ScenarioError, match="zero output"):
            load(folder, text, name)
        return
    got = load(folder, text, name)
    assert got.arrival_s is not None
    assert got.arrival_s == pytest.approx([row[0] - expected[0][0] for row in expected], abs=1e-8)
    assert got.prompts.input_tokens.tolist() == [row[1] for row in expected]
    assert got.prompts.output_tokens.tolist() == [row[2] for row in expected]


@given(text=st.text(max_size=80), name=st.sampled_from(["t.csv", "t.jsonl"]))
@settings(max_examples=100, deadline=None)
def test_any_text_is_read_or_refused_cleanly(
    tmp_path_factory: pytest.TempPathFactory, text: str, name: str
) -> None:
    folder = tmp_path_factory.mktemp("trace")
    (folder / name).write_text(HEADER + text if name == "t.csv" else text, encoding="utf-8", errors="replace")
    try:
        assert len(trace.load(name, 0, folder).prompts) > 0
    except ScenarioError as error:
        assert 1 <= len(error.problems) <= 11
