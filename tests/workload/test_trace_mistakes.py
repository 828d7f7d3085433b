"""A broken trace is one clear error: every broken line, at its place."""

import json
import lzma
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trace_text import HEADER, MOONCAKE, load

from sim.scenario.errors import ScenarioError
from sim.workload import trace

AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n"


@pytest.mark.parametrize(
    ("name", "text", "place", "says"),
    [
        ("t.csv", HEADER + "0,10,1\n1,ten,1\n", ":3:3", "input_tokens: expected a number, got 'ten'"),
        ("t.csv", HEADER + "0,10,1\n1,-4,1\n", ":3:3", "input_tokens: expected at least 1, got -4"),
        ("t.csv", HEADER + "0,0,1\n", ":2:3", "input_tokens: expected at least 1, got 0"),
        ("t.csv", HEADER + "0,10,-1\n", ":2:6", "output_tokens: expected at least 0, got -1"),
        ("t.csv", HEADER + "0,10,1.5\n", ":2:6", "output_tokens: expected a whole number, got 1.5"),
        ("t.csv", HEADER + "0,1e300,1\n", ":2:3", "input_tokens: expected at most 1e+12"),
        ("t.csv", HEADER + "inf,10,1\n", ":2:1", "arrival_s: expected a finite number"),
        ("t.csv", HEADER + ",10,1\n", ":2:1", "arrival_s: expected a number, got nothing"),
        (
            "t.csv",
            HEADER + "0,10\n",
            ":2:3",
            "expected 3 cells (arrival_s,input_tokens,output_tokens), got 2",
        ),
        ("t.csv", HEADER + "0,10,1,9\n", ":2:8", "expected 3 cells"),
        ("t.csv", HEADER + '0,"10,1\n', ":2:1", "broken CSV"),
        ("t.csv", "input_tokens,output_tokens,input_tokens\n1,2,3\n", ":1:1", "appears twice"),
        ("t.csv", HEADER + '0,"10\n",x\n', ":2:1", "output_tokens: expected a number, got 'x'"),
        ("t.csv", HEADER, "", "has no rows"),
        ("t.csv", "", "", "has no rows"),
        (
            "t.csv",
            "time,tokens\n1,2\n",
            ":1:1",
            "expected a column of prompt tokens (input_tokens, prompt_tokens,",
        ),
        ("t.csv", HEADER + "0,10,0\n", "", "every request has zero output tokens"),
        ("t.csv", AZURE + "2023-11-16 18:15:61,1,1\n", ":2:1", "TIMESTAMP: expected a date and time"),
        (
            "t.jsonl",
            MOONCAKE + '{"timestamp": 0, "input_length": \n',
            ":2:34",
            "broken JSON: Expecting value",
        ),
        ("t.jsonl", MOONCAKE + "[1, 2]\n", ":2:1", "expected an object"),
        ("t.jsonl", MOONCAKE.replace("600", "true"), ":1:18", "input_length: expected a number, got 'True'"),
        (
            "t.jsonl",
            MOONCAKE + '{"timestamp": 0, "output_length": 5, "hash_ids": []}\n',
            ":2:1",
            "input_length: expected a number",
        ),
        (
            "t.jsonl",
            MOONCAKE.replace("[1, 2]", "[1]"),
            ":1:59",
            "hash_ids: expected 2 for 600 tokens in blocks of 512",
        ),
        (
            "t.jsonl",
            MOONCAKE.replace("[1, 2]", '["a", 2]'),
            ":1:59",
            "hash_ids: expected a list of whole numbers",
        ),
        (
            "t.jsonl",
            MOONCAKE + MOONCAKE.replace("[1, 2]", "[3, 2]"),
            ":2:59",
            "hash_ids: expected chained hashes; 2 follows 3 here and 1 elsewhere",
        ),
        ("t.txt", HEADER, "", "expected a .csv or .jsonl file"),
        ("t.csv.xz", "not compressed", "", "cannot be read"),
        ("t.csv.gz", "not compressed", "", "cannot be read"),
    ],
)
def test_a_broken_line_is_told_with_its_place(
    tmp_path: Path, name: str, text: str, place: str, says: str
) -> None:
    with pytest.raises(ScenarioError) as raised:
        load(tmp_path, text, name)
    (problem,) = raised.value.problems
    assert str(problem.place) == f"{tmp_path / name}{place}"
    assert says in problem.message
    assert "Traceback" not in str(raised.value)


def places(raised: pytest.ExceptionInfo[ScenarioError]) -> list[tuple[int | None, int | None]]:
    return [(problem.line, problem.column) for problem in raised.value.problems]


def test_every_broken_line_is_told_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    """Lines 3 (a cell too few), 4 (two cells), 6 (one cell); line 5 is empty and says nothing."""
    rows = ["0,10,1", "1,10", "x,10,-1", "", "2,0,1", "3,10,1"]
    with pytest.raises(ScenarioError) as raised:
        load(tmp_path, HEADER + "\n".join(rows))
    assert places(raised) == [(3, 3), (4, 6), (4, 1), (6, 3)]
    lines = [MOONCAKE, "{\n", "[]\n", MOONCAKE.replace("600", '"many"'), MOONCAKE.replace("[1, 2]", "7")]
    with pytest.raises(ScenarioError) as raised:
        load(tmp_path, "".join(lines), "t.jsonl")
    assert places(raised) == [(2, 2), (3, 1), (4, 18), (5, 59)]


def test_hashes_that_do_not_fit_are_told_for_every_line(tmp_path: Path) -> None:
    lines = [MOONCAKE, MOONCAKE.replace("[1, 2]", "[1]"), MOONCAKE.replace("[1, 2]", "[3, 2]"), MOONCAKE]
    with pytest.raises(ScenarioError) as raised:
        load(tmp_path, "".join(lines), "t.jsonl")
    assert places(raised) == [(2, 59), (3, 59)]


@given(broken=st.sets(st.integers(2, 60)), as_json=st.booleans())
@settings(max_examples=40, deadline=None)
def test_at_most_ten_broken_lines_are_told_and_the_others_counted(
    tmp_path_factory: pytest.TempPathFactory, broken: set[int], as_json: bool
) -> None:
    folder, name = tmp_path_factory.mktemp("trace"), "t.jsonl" if as_json else "t.csv"
    sound = json.dumps(dict(zip(HEADER.strip().split(","), (0, 10, 1), strict=True))) if as_json else "0,10,1"
    rows = ["?" if line in broken else sound for line in range(2, 62)]
    text = "\n".join([sound if as_json else HEADER.strip(), *rows])
    if not broken:
        assert len(load(folder, text, name).prompts) == 60 + as_json
        return
    with pytest.raises(ScenarioError) as raised:
        load(folder, text, name)
    told = [problem.line for problem in raised.value.problems]
    assert told[:10] == sorted(broken)[:10]
    assert told[10:] == ([None] if len(broken) > 10 else [])
    if len(broken) > 10:
        assert raised.value.problems[10].message == f"and {len(broken) - 10} more such mistakes"


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ScenarioError, match="cannot be read"):
        trace.load("t.csv", 0, tmp_path)


def test_a_truncated_archive(tmp_path: Path) -> None:
    whole = (trace.FOLDER / "azure_2023_code.csv.xz").read_bytes()
    (tmp_path / "t.csv.xz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ScenarioError, match="cannot be read"):
        trace.load("t.csv.xz", 0, tmp_path)


def test_a_broken_line_deep_in_a_real_trace(tmp_path: Path) -> None:
    lines = (
        lzma.decompress((trace.FOLDER / "azure_2023_conversation.csv.xz").read_bytes()).decode().split("\n")
    )
    lines[12_344] = lines[12_344].replace(",", ";", 1)
    with pytest.raises(ScenarioError) as raised:
        load(tmp_path, "\n".join(lines))
    assert raised.value.problems[0].line == 12_345
