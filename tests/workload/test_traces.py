"""Traces: the shipped ones are what their sources say, and a broken file is one clear error."""

import gzip
import json
import lzma
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.scenario.errors import DeploymentError, ScenarioError
from sim.workload import trace

HEADER = "arrival_s,input_tokens,output_tokens\n"


def load(folder: Path, text: str, name: str = "t.csv") -> trace.Trace:
    (folder / name).write_text(text)
    return trace.load(name, 0, folder)


# --- shipped: counts from the data sets' own descriptions; spans and sums counted in the files with awk


@pytest.mark.parametrize(
    ("name", "requests", "span_s", "mean_input", "mean_output"),
    [
        ("azure-conversation", 19_366, 3501.721937, 1154.70, 211.13),
        ("azure-code", 8_819, 3435.948056, 2047.85, 27.88),
        ("mooncake-conversation", 12_031, 3537.0, 12_035.06, 342.62),
        ("mooncake-synthetic", 3_993, 1022.025, 15_325.48, 149.12),
    ],
)
def test_shipped_traces(
    name: str, requests: int, span_s: float, mean_input: float, mean_output: float
) -> None:
    recorded = trace.load(name, seed=0)
    assert recorded.arrival_s is not None
    assert len(recorded.prompts) == len(recorded.arrival_s) == requests
    assert recorded.arrival_s[-1] == pytest.approx(
        span_s, abs=3.0 if name == "mooncake-conversation" else 1e-6
    )
    assert recorded.prompts.input_tokens.mean() == pytest.approx(mean_input, abs=0.01)
    assert recorded.prompts.output_tokens.mean() == pytest.approx(mean_output, abs=0.01)
    assert (np.diff(recorded.arrival_s) >= 0).all()
    assert recorded.notes == ()


def test_first_rows_of_azure_conversation() -> None:
    # 2023-11-16 18:15:46.6805900,374,44 / 18:15:50.9951690,396,109: 4.314579 s apart.
    recorded = trace.load("azure-conversation", seed=0)
    assert recorded.arrival_s is not None
    assert recorded.arrival_s[:2].tolist() == [0.0, pytest.approx(4.314579, abs=1e-9)]
    assert recorded.prompts.input_tokens[:2].tolist() == [374, 396]
    assert recorded.prompts.output_tokens[:2].tolist() == [44, 109]
    assert recorded.prompts.blocks == ()


def test_mooncake_prompts_carry_a_chained_hash_per_block_of_512() -> None:
    prompts = trace.load("mooncake-conversation", seed=0).prompts
    assert prompts.block_tokens == 512
    assert prompts.blocks[0] == tuple(range(14))  # 6,758 tokens begin 14 blocks
    assert sum(map(len, prompts.blocks)) == 288_500
    before: dict[int, int | None] = {}
    for hashes in prompts.blocks:
        for previous, block in zip((None, *hashes), hashes, strict=False):
            assert before.setdefault(block, previous) == previous, "an id follows two different prefixes"


def test_stamps_of_three_seconds_are_spread_over_them() -> None:
    first, again, other = (trace.load("mooncake-conversation", seed) for seed in (1, 1, 2))
    assert first.arrival_s is not None and again.arrival_s is not None and other.arrival_s is not None
    assert first.arrival_s.tolist() == again.arrival_s.tolist()
    assert first.arrival_s.tolist() != other.arrival_s.tolist()
    assert len(np.unique(first.arrival_s)) == len(first.arrival_s)
    # Uniform over the three seconds: the fraction of a stamp has mean 1.5 and standard error 3 / sqrt(12 x 12,031).
    within = first.arrival_s % 3.0
    assert abs(within.mean() - 1.5) < 4 * 3 / np.sqrt(12 * 12_031)
    # As many in each three seconds as the file has; some stamps are 1 to 3 ms off the multiple.
    mine = np.bincount((first.arrival_s // 3).astype(int))
    theirs = np.bincount(np.rint(_stamps_ms() / 3000).astype(int))
    assert abs(mine[: len(theirs)] - theirs).sum() <= 0.01 * len(first.arrival_s)


def _stamps_ms() -> np.ndarray:
    with lzma.open(trace.FOLDER / "mooncake_conversation.jsonl.xz", "rt") as lines:
        return np.array([json.loads(line)["timestamp"] for line in lines])


# --- files of users


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


AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
MOONCAKE = '{"timestamp": 0, "input_length": 600, "output_length": 5, "hash_ids": [1, 2]}\n'


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


DOCS = (Path(__file__).parents[2] / "docs" / "workloads.md").read_text(encoding="utf-8")


def test_the_documented_clients_and_sessions_are_read(tmp_path: Path) -> None:
    client, session = (line for line in DOCS.splitlines() if line.startswith('{"'))
    assert len(load(tmp_path, client, "t.jsonl").prompts) > 20
    (tmp_path / "s.jsonl").write_text(session)
    talk = trace.load("s.jsonl", 0, tmp_path)
    assert isinstance(talk, trace.Sessions) and talk.turns == 2


def test_the_documented_error_is_what_is_said(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError) as raised:
        load(tmp_path, HEADER + "0,10,1\n1,ten,1\n2,10\n", "my.csv")
    assert str(raised.value).replace(f"{tmp_path}/", "") in DOCS


def test_every_shipped_trace_is_documented() -> None:
    assert all(f"`{name}`" in DOCS for name in trace.shipped())


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


def test_an_unknown_trace_names_the_nearest() -> None:
    with pytest.raises(DeploymentError) as raised:
        trace.load("azure-conversatoin", 0)
    (problem,) = raised.value.problems
    assert problem.path == ("workload", "trace")
    assert "did you mean 'azure-conversation'" in problem.message


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
