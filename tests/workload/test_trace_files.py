"""Files of people: what their columns, separators, stamps and hashes are read as, and when a question is asked."""

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from sim.cli import app
from sim.scenario.errors import DeploymentError, ScenarioError
from sim.workload import trace

RUNNER = CliRunner()


def load(folder: Path, text: str, name: str = "t.csv", time_unit: str | None = None) -> trace.Trace:
    (folder / name).write_text(text)
    found = trace.load(name, 0, folder, time_unit=time_unit)
    assert isinstance(found, trace.Trace)
    return found


@pytest.mark.parametrize(
    ("header", "unit"),
    [
        ("arrival_s,input_tokens,output_tokens", "s"),
        ("timestamp,prompt_tokens,completion_tokens", "s"),
        ("Timestamp,Request tokens,Response tokens", "s"),
        ("arrived_at,num_prefill_tokens,num_decode_tokens", "s"),
        ("ts,prompt_len,output_len", "s"),
        ("start_time,input_length,output_length", "s"),
        ("TIME,promptTokens,completionTokens", "s"),
        ("arrival_time,prompt-length,generated tokens", "s"),
        ("timestamp_ms,isl,osl", "ms"),
        ("arrival_us,input len,output len", "us"),
        ("t.ns,n_input_tokens,generation_len", "ns"),
        ("start time sec,ContextTokens,GeneratedTokens", "s"),
    ],
)
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_columns_that_people_have(tmp_path: Path, header: str, unit: str, separator: str) -> None:
    """Two requests a second, in the unit that the name says, else in seconds."""
    per_s = {"s": 1, "ms": 1000, "us": 10**6, "ns": 10**9}[unit]
    rows = [header, *(f"{i * per_s // 2 if unit != 's' else i / 2},{100 + i},{10 + i}" for i in range(12))]
    found = load(tmp_path, "\n".join(rows).replace(",", separator))
    assert found.arrival_s is not None and found.arrival_s.tolist() == pytest.approx(
        [i / 2 for i in range(12)]
    )
    assert found.prompts.input_tokens.tolist() == list(range(100, 112))
    assert found.prompts.output_tokens.tolist() == list(range(10, 22))


@pytest.mark.parametrize("per_s", [1, 10**3, 10**6, 10**9])
def test_stamps_since_1970_tell_their_unit(tmp_path: Path, per_s: int) -> None:
    rows = [f"{(1_700_000_000 + 40 * i) * per_s},100,10" for i in range(20)]
    found = load(tmp_path, "timestamp,prompt_tokens,completion_tokens\n" + "\n".join(rows))
    assert found.span_s == pytest.approx(40 * 19)


@pytest.mark.parametrize(
    "stamp",
    ["2024-05-10 00:00:0{}", "2024-05-10T00:00:0{}Z", "2024-05-10T02:00:0{}+02:00", "2024/05/10 00:00:0{}.0000000"],
)  # fmt: skip
def test_dates_with_and_without_a_zone(tmp_path: Path, stamp: str) -> None:
    rows = [f"{stamp.format(i)},10,1" for i in range(4)]
    found = load(tmp_path, "time,input_tokens,output_tokens\n" + "\n".join(rows))
    assert found.arrival_s is not None and found.arrival_s.tolist() == [0, 1, 2, 3]
    with pytest.raises(DeploymentError, match="holds dates"):
        load(tmp_path, "time,input_tokens,output_tokens\n" + "\n".join(rows), time_unit="ms")


def test_a_parquet_file(tmp_path: Path) -> None:
    stamps = [datetime(2026, 1, 1, 0, 0, second, tzinfo=UTC) for second in (1, 2, 4)]
    table = {"created_at": stamps, "prompt_tokens": [10, 20, 30], "completion_tokens": [1, 2, 3]}
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    found = trace.load("t.parquet", 0, tmp_path)
    assert isinstance(found, trace.Trace) and found.arrival_s is not None
    assert found.arrival_s.tolist() == [0, 1, 3]
    assert found.prompts.input_tokens.tolist() == [10, 20, 30]
    pq.write_table(pa.table(table | {"prompt_tokens": [10, None, 0]}), tmp_path / "t.parquet")
    with pytest.raises(ScenarioError) as raised:
        trace.load("t.parquet", 0, tmp_path)
    assert [str(p.place)[-3:] for p in raised.value.problems] == ["2:2", "3:2"]
    (tmp_path / "t.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(ScenarioError, match="cannot be read as Parquet"):
        trace.load("t.parquet", 0, tmp_path)


HEADER = "timestamp,prompt_tokens,completion_tokens\n"


def seconds(count: int, rate_per_s: float, per_s: float) -> str:
    return "\n".join(f"{i / rate_per_s * per_s:.6f},100,10" for i in range(count))


def test_milliseconds_are_never_read_as_seconds_in_silence(tmp_path: Path) -> None:
    """2,000 requests in 260 s (7.69 per second), written in ms, us and ns; a name, a key or dates would tell."""
    for unit, per_s in (("ms", 1e3), ("us", 1e6), ("ns", 1e9)):
        text = HEADER + seconds(2000, 2000 / 260, per_s)
        with pytest.raises(DeploymentError) as raised:
            load(tmp_path, text)
        [problem] = raised.value.problems
        assert problem.path == ("workload", "time_unit")
        assert f"in {unit} (7.7 per second)" in problem.message and "2,000 requests" in problem.message
        assert load(tmp_path, text, time_unit=unit).span_s == pytest.approx(260, rel=1e-3)
    assert load(tmp_path, HEADER + seconds(2000, 2000 / 260, 1)).span_s == pytest.approx(260, rel=1e-3)


def test_seconds_are_never_read_as_milliseconds_in_silence(tmp_path: Path) -> None:
    """Mooncake's keys with fractions count in seconds (Bailian); whole ones in ms, unless that is 8,000 per second."""

    def lines(step: float) -> str:
        rows = ({"timestamp": i * step, "input_length": 40, "output_length": 5} for i in range(50))
        return "\n".join(map(json.dumps, rows))

    assert load(tmp_path, lines(2.125), "t.jsonl").span_s == pytest.approx(49 * 2.125)
    assert load(tmp_path, lines(2000), "t.jsonl").span_s == pytest.approx(98)
    assert load(tmp_path, lines(0), "t.jsonl").span_s == 0  # all at once, in any unit
    rows = ({"timestamp": i // 4, "input_length": 40, "output_length": 5} for i in range(200))
    text = "\n".join(map(json.dumps, rows))
    with pytest.raises(DeploymentError, match="time_unit: what does timestamp"):
        load(tmp_path, text, "t.jsonl")
    assert load(tmp_path, text, "t.jsonl", "s").span_s == 49


def bailian(size: int, empty: int = 0) -> str:
    """Prompts of 2 to 9 blocks and a half; the first `empty` of them without hashes."""
    rows = [
        {"timestamp": i + 0.5, "input_length": size * n + size // 2, "output_length": 5,
         "hash_ids": [] if i < empty else [*range(n), 1000 + i]}
        for i, n in enumerate(range(2, 10))
    ]  # fmt: skip
    return "\n".join(map(json.dumps, rows))


@pytest.mark.parametrize("size", [16, 32, 64, 128, 256, 320, 512, 1024])
def test_the_size_of_blocks_is_found_out(tmp_path: Path, size: int) -> None:
    found = load(tmp_path, bailian(size), "t.jsonl").prompts
    assert found.block_tokens == size
    assert [len(ids) for ids in found.blocks] == list(range(3, 11))


def test_lines_without_hashes(tmp_path: Path) -> None:
    some = load(tmp_path, bailian(16, empty=3), "t.jsonl")
    assert "3 prompts have no hash_ids" in some.notes[0]
    assert [len(ids) for ids in some.prompts.blocks] == list(range(3, 11))
    fresh = [block for ids in some.prompts.blocks[:3] for block in ids]
    assert len(set(fresh)) == len(fresh) and not set(fresh) & set(some.prompts.blocks[7])
    none = load(tmp_path, bailian(16, empty=8), "t.jsonl")
    assert none.prompts.block_tokens is None and "no prefix is known" in none.notes[0]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("arrival_s,tokens\n1,2\n", "prompt tokens (input_tokens, prompt_tokens,"),
        ("arrival_s;prompt_tokens\n1;2\n", "generated tokens (output_tokens, completion_tokens,"),
        ("a,prompt_tokens,output_tokens\n", "has no rows"),
    ],
)
def test_what_is_missing_is_named_with_what_would_do(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ScenarioError) as raised:
        load(tmp_path, text)
    assert says in str(raised.value)


def test_cells_of_other_separators_are_pointed_at(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError) as raised:
        load(tmp_path, "time;prompt_tokens;completion_tokens\n0;10;2\n1;ten;3\n2;3\n")
    assert [(p.line, p.column) for p in raised.value.problems] == [(3, 3), (4, 3)]


SCENARIO = """model: deepseek-v3.2
gpu: h200_sxm
deployment: {serve: {gpus: 8, ep: 8}}
workload: {trace: t.csv}
"""


def test_a_run_says_what_the_file_was_read_as_and_what_was_cut(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(HEADER + seconds(40, 2.0, 1))
    (tmp_path / "s.yaml").write_text(SCENARIO + "duration_s: 3\n")
    told = RUNNER.invoke(app, ["run", str(tmp_path / "s.yaml"), "--json", "--set", "workload.requests=20"])
    notes = json.loads(told.stdout.splitlines()[-1])["notes"]
    file = tmp_path / "t.csv"
    assert notes[:3] == [
        f"{file}: read as timestamp (s, assumed), prompt_tokens and completion_tokens: 40 requests in 19.5 s (2.05 per "
        "second), on average 100 tokens in and 10 out",
        f"{file}: the first 20 of its 40 requests (workload.requests)",
        f"{file}: 6 of 20 requests arrive before duration_s 3; the others are left out",
    ]
    assert all(note in told.stderr for note in notes[:3])


def test_the_question_for_the_unit_names_the_key_and_is_answered_by_it(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(HEADER + seconds(40, 2.0, 1e3))
    (tmp_path / "s.yaml").write_text(SCENARIO)
    asked = RUNNER.invoke(app, ["check", str(tmp_path / "s.yaml")])
    assert asked.exit_code == 2 and "workload.time_unit: what does timestamp" in asked.stderr
    answered = RUNNER.invoke(
        app, ["check", str(tmp_path / "s.yaml"), "--set", "workload.time_unit=ms", "--json"]
    )
    assert answered.exit_code == 0 and json.loads(answered.stdout)["requests"] == 40
    shipped = RUNNER.invoke(
        app, ["check", str(tmp_path / "s.yaml"), "--set", "workload={trace: azure-code, time_unit: s}"]
    )
    assert shipped.exit_code == 2 and "leave it out" in shipped.stderr


def test_the_command_tells_what_a_file_is(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text(bailian(16))
    told = RUNNER.invoke(app, ["trace", str(tmp_path / "t.jsonl"), "--json"])
    data = json.loads(told.stdout.splitlines()[-1])
    assert data["columns"] == {
        "arrival": "timestamp", "input": "input_length", "output": "output_length", "blocks": "hash_ids"
    }  # fmt: skip
    assert (data["kind"], data["requests"], data["time_unit"], data["block_tokens"]) == (
        "requests",
        8,
        "s",
        16,
    )
    assert data["span_s"] == 7 and data["rate_per_s"] == pytest.approx(8 / 7)
    # Prompt i of n = 3 .. 9 blocks finds the n - 1 whole ones of the prompt before it.
    tokens = [16 * n + 8 for n in range(2, 10)]
    assert data["seen_before"] == pytest.approx(sum(16 * (n - 1) for n in range(3, 10)) / sum(tokens))
    assert data["input_tokens"]["mean"] == pytest.approx(np.mean(tokens))
    (tmp_path / "m.csv").write_text(HEADER + seconds(40, 2.0, 1e3))
    asked = RUNNER.invoke(app, ["trace", str(tmp_path / "m.csv")])
    assert asked.exit_code == 2 and "s, ms, us or ns" in asked.stderr
    assert RUNNER.invoke(app, ["trace", str(tmp_path / "m.csv"), "--time-unit", "ms"]).exit_code == 0
    assert RUNNER.invoke(app, ["trace", "no-such"]).exit_code == 2


def test_the_command_tells_clients_and_sessions() -> None:
    data = json.loads(RUNNER.invoke(app, ["trace", "agentic-coding", "--json"]).stdout)
    assert (data["kind"], data["sessions"], data["requests"], data["block_tokens"]) == (
        "sessions",
        710,
        49307,
        64,
    )
