"""`tokenworks trace`: the same requests however they are written, or one clear error; and what is shown of them."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sim.cli import app
from sim.cli.trace_command import bar

RUNNER = CliRunner()
ROWS = [(0.25 * i + (i % 5) / 100, 100 + 7 * i % 900, 10 + 3 * i % 50) for i in range(120)]
"""Arrival in seconds, tokens in, tokens out: 4 requests a second."""


def told(path: Path, *more: str) -> dict[str, Any]:
    result = RUNNER.invoke(app, ["trace", str(path), "--json", *more])
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def understood(data: dict[str, Any]) -> dict[str, Any]:
    """What the requests are, without how they were written."""
    written = ("trace", "columns", "ignored", "time_unit", "time_unit_told_by", "notes")
    return {key: value for key, value in data.items() if key not in written}


def lines(rows: list[tuple[float, int, int]], header: str = "arrival_s,input_tokens,output_tokens") -> str:
    return "\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n"


@pytest.fixture
def plain(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "plain.csv").write_text(lines(ROWS))
    return told(tmp_path / "plain.csv")


def shuffled(rows: list[tuple[float, int, int]]) -> list[tuple[float, int, int]]:
    return random.Random(0).sample(rows, len(rows))


def in_ms(rows: list[tuple[float, int, int]]) -> list[tuple[float, int, int]]:
    return [(round(at * 1000, 6), *tokens) for at, *tokens in rows]  # type: ignore[misc]


def iso(rows: list[tuple[float, int, int]]) -> str:
    stamped = [(f"2026-11-30T10:00:{at:09.6f}Z", *tokens) for at, *tokens in rows]
    return lines(stamped, "TIMESTAMP,ContextTokens,GeneratedTokens")  # type: ignore[arg-type]


def lmcache(rows: list[tuple[float, int, int]]) -> str:
    """As the summary of LMCache's multi-round benchmark has them: launched since 1970, other columns between."""
    header = (
        "prompt_tokens,generation_tokens,ttft,generation_time,user_id,question_id,launch_time,finish_time"
    )
    told = [f"{i},{o},0.1,1.0,3,4,{1.7e9 + at:.6f},{1.7e9 + at + 1.1:.6f}" for at, i, o in rows]
    return "\n".join([header, *told]) + "\n"


def jsonl(rows: list[tuple[float, int, int]], *names: str) -> str:
    return "\n".join(json.dumps(dict(zip(names, row, strict=True))) for row in rows)


WRITTEN = {
    "shuffled.csv": lines(shuffled(ROWS)),
    "milliseconds.csv": lines(in_ms(ROWS), "timestamp_ms,prompt_tokens,completion_tokens"),
    "azure.csv": iso(ROWS[:120]),
    "burstgpt.csv": lines(ROWS, "Timestamp,Request tokens,Response tokens"),
    "lmcache.csv": lmcache(shuffled(ROWS)),
    "aiperf.jsonl": jsonl(ROWS, "timestamp", "input_sequence_length", "output_sequence_length"),
    "vllm.jsonl": jsonl(in_ms(shuffled(ROWS)), "arrival_ms", "prompt_len", "output_len"),
    "semicolons.csv": lines(ROWS).replace(",", ";"),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_the_same_requests_are_read_however_they_are_written(
    tmp_path: Path, plain: dict[str, Any], name: str
) -> None:
    (tmp_path / name).write_text(WRITTEN[name])
    data = told(tmp_path / name)
    assert any("sorted" in note for note in data["notes"]) is (name in SHUFFLED)
    got, want = understood(data), understood(plain)
    for key in ("requests", "lengths", "input_tokens", "output_tokens"):
        assert got[key] == want[key]
    assert got["span_s"] == pytest.approx(want["span_s"], abs=1e-3)
    assert [part["requests"] for part in got["over_time"]] == [part["requests"] for part in want["over_time"]]


SHUFFLED = ("shuffled.csv", "lmcache.csv", "vllm.jsonl")

BROKEN = {
    "a missing column": (lines(ROWS).replace("output_tokens", "note"), ":1:1: expected a column of generated tokens"),
    "one broken number": (lines(ROWS).replace("107,13", "many,13", 1), ":3:6: input_tokens: expected a number"),
    "one short line": (lines(ROWS).replace(",107,13", ",107", 1), ":3:"),
    "no requests": ("arrival_s,input_tokens,output_tokens\n", "has no rows"),
    "a benchmark's result": ('{"completed": 3, "duration": 1.0}', "validate --bench"),
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_broken_is_one_clear_error(tmp_path: Path, what: str) -> None:
    text, says = BROKEN[what]
    path = tmp_path / ("t.jsonl" if text.startswith("{") else "t.csv")
    path.write_text(text)
    result = RUNNER.invoke(app, ["trace", str(path)])
    assert result.exit_code == 2 and says in result.stderr and result.stderr.count(str(path)) == 1


def test_rate_over_time_adds_up_to_the_requests(plain: dict[str, Any]) -> None:
    parts = plain["over_time"]
    assert sum(part["requests"] for part in parts) == len(ROWS)
    length_s = plain["span_s"] / len(parts)
    assert [part["from_s"] for part in parts] == pytest.approx([i * length_s for i in range(len(parts))])
    assert all(part["requests_per_s"] == pytest.approx(part["requests"] / length_s) for part in parts)
    first = [row for row in ROWS if row[0] < length_s]
    assert parts[0]["input_tokens"] == pytest.approx(sum(row[1] for row in first) / len(first))
    counted = plain["lengths"]["input_tokens"]
    assert counted[0]["from"] == 64 and counted[0]["to"] == 127
    assert counted[0]["requests"] == sum(row[1] < 128 for row in ROWS)
    assert sum(one["requests"] for one in counted) == len(ROWS)


def test_prefixes_are_shown_over_time(tmp_path: Path) -> None:
    """Every prompt of 1,024 tokens begins with the same 512: half is seen before, of all but the first."""
    rows = [
        {"timestamp": 500 * i, "input_length": 1024, "output_length": 5, "hash_ids": [0, 1 + i]}
        for i in range(24)
    ]
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    data = told(path)
    assert data["seen_before"] == pytest.approx(23 / 48)
    assert [part["seen_before"] for part in data["over_time"]] == pytest.approx([0.25] + 11 * [0.5])
    shown = RUNNER.invoke(app, ["trace", str(path)]).stdout
    assert "seen before" in shown and "Over time" in shown and "\u2588" * 40 in shown
    assert "1,024 to 2,047" in shown and "0 s" in shown


def test_bars_are_as_long_as_their_shares() -> None:
    assert bar(1.0, 10) == "\u2588" * 10 and bar(0.0) == ""
    assert bar(0.55, 10) == "\u2588" * 5 + "\u258c"  # a half
    assert bar(1 / 80, 10) == "\u258f" and bar(7 / 80, 10) == "\u2589"  # an eighth, seven


@pytest.mark.parametrize("last_s", [0.0, 5e-324, 1e-300, 1e-10])
def test_all_at_once_has_no_rate_over_time(tmp_path: Path, last_s: float) -> None:
    (tmp_path / "t.csv").write_text(lines([(0.0, 10, 1)] * 11 + [(last_s, 10, 1)]))
    data = told(tmp_path / "t.csv")
    assert data["over_time"] == [] and data["rate_per_s"] is None
    assert "Over time" not in RUNNER.invoke(app, ["trace", str(tmp_path / "t.csv")]).stdout
