"""Whatever surrounds a command (closed or full streams, odd names, a result beside its input): nothing is lost, and
nothing ends in a traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from told import GOOD, Told

SHORT = GOOD.replace("duration_s: 20", "duration_s: 1").replace(
    "gpu: h200_sxm", "gpu: h200_sxm\nprofile: analytic"
)


def shell(folder: Path, command: str, **environment: str) -> "subprocess.CompletedProcess[bytes]":
    """A line of the shell in which `tokenworks` is this code's command."""
    tokenworks = f'tokenworks() {{ "{sys.executable}" -m sim.cli "$@"; }}\n'
    return subprocess.run(
        ["bash", "-c", tokenworks + command], cwd=folder, capture_output=True, timeout=120, check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **environment},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        (">&-", 0),
        (">&- 2>&- <&-", 0),
        ("> /dev/full", 2),
        ("--json > /dev/full", 2),
    ],
)
def test_streams_that_are_closed_or_full(tmp_path: Path, ending: str, code: int) -> None:
    (tmp_path / "s.yaml").write_text(SHORT)
    told = shell(tmp_path, f"tokenworks run s.yaml --out out {ending}")
    assert told.returncode == code and b"Traceback" not in told.stderr, told.stderr.decode()
    assert {file.name for file in (tmp_path / "out").iterdir()} > {
        "run.json",
        "requests.parquet",
        "report.html",
    }
    assert (tmp_path / "out" / "requests.parquet").read_bytes()[:4] == b"PAR1"


def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    name = os.fsdecode(b"odd\xff.yaml")
    (tmp_path / name).write_text(SHORT)
    told = shell(
        tmp_path,
        "tokenworks compare odd*.yaml odd*.yaml --out out && tokenworks run odd*.yaml --out $'o\\xff'",
    )
    assert told.returncode == 0, told.stderr.decode()
    assert {file.name for file in (tmp_path / "out").iterdir()} >= {"odd?", "odd?-2", "report.html"}


def test_a_progress_that_cannot_be_written_loses_no_run(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(SHORT)
    told = shell(
        tmp_path, "tokenworks run s.yaml --quiet", TOKENWORKS_PROGRESS=str(tmp_path / "none" / "progress")
    )
    assert told.returncode == 0, told.stderr.decode()


BENCH = '{"request_throughput": 1, "completed": 3}'
PLAN = "base: s.yaml\nsearch: {gpu: [h200_sxm]}\nobjectives: {ttft_p99_s: 2}\n"


@pytest.mark.parametrize(
    ("name", "text", "command"),
    [
        ("scenario.yaml", SHORT, ["run", "scenario.yaml", "--out", "."]),
        ("run.json", "{}", ["run", "run.json", "--out", "."]),
        ("scenario/scenario.yaml", SHORT, ["compare", "scenario/scenario.yaml", "--out", "."]),
        ("scenario.yaml", PLAN, ["plan", "scenario.yaml", "--out", "."]),
        ("b.json", BENCH, ["validate", "--bench", "b.json", "--anchor", "b.json"]),
        ("bench.json", BENCH, ["validate", "--bench", "bench.json", "--out", "."]),
        ("trace.json", "[]", ["trace", "trace.json", "--out", "."]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_no_result_takes_the_place_of_what_it_is_made_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str, command: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).write_text(text)
    Path("s.yaml").write_text(SHORT)  # the plan's base
    told = Told(*command)
    assert told.code == 2, told.stdout
    assert Path(name).read_text() == text
    if name != "run.json":  # which is no scenario at all
        assert "is read, and the result would take its place" in told.stderr


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("extends: out/scenario.yaml\n", ["run", "top.yaml", "--out", "out"]),
        ("base: out/scenario.yaml\nsearch: {gpu: [h200_sxm]}\nobjectives: {ttft_p99_s: 2.0}\n",
         ["plan", "top.yaml", "--out", "out"]),
    ],
)  # fmt: skip
def test_no_result_takes_the_place_of_a_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, command: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    base = tmp_path / "out" / "scenario.yaml"
    base.parent.mkdir()
    base.write_text(SHORT)
    (tmp_path / "top.yaml").write_text(text)
    told = Told(*command)
    assert told.code == 2 and base.read_text() == SHORT
    assert "is read, and the result would take its place" in told.stderr
