"""What is no file, or no text: every command that reads one says so in a sentence, and waits for nobody."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import pytest
from fuzz_case import RUNNER

from sim.cli import app
from sim.scenario.errors import ScenarioError
from sim.scenario.loading import from_data, parse

SCENARIO = """
model: deepseek-v3.2
gpu: h200_sxm
profile: analytic
deployment: {serve: {gpus: 8, ep: 8}}
workload:
  requests: 5
  arrivals: {poisson: {rate_per_s: 2}}
  lengths: {input: {constant: 100}, output: {constant: 5}}
"""
CHECK = ["check", "sound.yaml", "--set"]
COMMANDS = {
    "check": ["check", "odd"],
    "compare": ["compare", "sound.yaml", "odd", "--quiet"],
    "launch write": ["launch", "write", "odd"],
    "launch read": ["launch", "read", "odd", "--gpu", "h200"],
    "sweep": ["sweep", "odd", "--dry-run"],
    "plan": ["plan", "odd", "--quiet"],
    "trace": ["trace", "odd"],
    "trace jsonl": ["trace", "odd.jsonl"],
    "trace parquet": ["trace", "odd.parquet"],
    "validate table": ["validate", "--table", "odd.csv", "--quiet"],
    "validate table parquet": ["validate", "--table", "odd.parquet", "--quiet"],
    "validate bench": ["validate", "--bench", "odd", "--scenario", "sound.yaml", "--quiet"],
    "validate scenario": ["validate", "--bench", "bench.json", "--scenario", "odd", "--quiet"],
    "calibrate fit": ["calibrate", "fit", "odd", "--out", "fitted"],
    "calibrate step": ["calibrate", "step", "odd", "--out", "steps"],
    "calibrate step json": ["calibrate", "step", "odd.json", "--out", "steps"],
    "calibrate show": ["calibrate", "show", "odd"],
    "calibrate diff": ["calibrate", "diff", "odd", "h200_sxm/sglang"],
    "model": [*CHECK, "model=./odd.json"],
    "gpu": [*CHECK, "gpu=./odd.yaml"],
    "profile": [*CHECK, "profile=./odd.yaml"],
    "anchor": [*CHECK, "anchor=./odd.json"],
    "extends": [*CHECK, "extends=./odd"],
    "histogram": [*CHECK, "workload.lengths.input={histogram: ./odd.csv}"],
    "curve": [*CHECK, "workload.arrivals={diurnal: {mean_rate_per_s: 2, curve: ./odd.csv}}"],
    "schedule": [*CHECK, "autoscale={schedule: ./odd.csv}"],
    "counts": [*CHECK, "experts={counts: ./odd.json}"],
}
NAMES = ("odd", "odd.json", "odd.jsonl", "odd.csv", "odd.yaml", "odd.parquet")
PIPED = ("check", "compare", "launch write", "launch read", "sweep", "plan", "validate scenario")
"""A scenario may come from a pipe, as in `tokenworks check <(...)`; whoever names one waits for its writer."""


def _loop(path: Path) -> None:
    path.symlink_to(path.name)


ODD: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: None,
    "folder": Path.mkdir,
    "link to itself": _loop,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "pipe": os.mkfifo,
    "empty": Path.touch,
    "blank": lambda path: path.write_text("\n \n\t\n"),
    "binary": lambda path: path.write_bytes(bytes(range(256)) * 4),
    "packed, torn": lambda path: path.write_bytes(b"\x1f\x8b\x08\x00" + bytes(30)),
    "UTF-16": lambda path: path.write_bytes("a: 1\nb: 2\n".encode("utf-16")),
    "Latin-1": lambda path: path.write_bytes(b"a: caf\xe9\n"),
    "a number": lambda path: path.write_text("5\n"),
    "a list": lambda path: path.write_text("[1, 2]\n"),
    "a deep list": lambda path: path.write_text("[" * 5000),
    "a long line": lambda path: path.write_text("x" * 300_000),
    "a long number": lambda path: path.write_text("x: " + "9" * 5000 + "\n"),
}  # fmt: skip


@contextmanager
def within(seconds: int) -> Iterator[None]:
    def stop(signum: int, frame: FrameType | None) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


@pytest.mark.parametrize("kind", ODD)
def test_what_is_no_file_or_no_text_is_told_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("sound.yaml").write_text(SCENARIO)
    Path("bench.json").write_text('{"request_throughput": 1, "completed": 3}')
    for name in NAMES:
        ODD[kind](Path(name))
    wrong = []
    for name, command in COMMANDS.items():
        if kind == "pipe" and name in PIPED:
            continue
        with within(60):
            told = RUNNER.invoke(app, command)
        if not isinstance(told.exception, SystemExit):
            wrong.append(f"{name}: {told.exception!r}")
        elif told.exit_code != 2:
            wrong.append(f"{name}: exit code {told.exit_code}")
        elif not told.stderr.strip() or told.stderr.count("\n") > 20 or len(told.stderr) > 10_000:
            wrong.append(f"{name}: {told.stderr[:500]}")
    assert not wrong


@pytest.mark.parametrize("value", ["-0.0", "5.5", "{gpu: 5}", "[h200_sxm]", "{}", "null"])
def test_a_plan_says_what_is_no_gpu(tmp_path: Path, value: str) -> None:
    (tmp_path / "s.yaml").write_text(SCENARIO)
    plan = tmp_path / "p.yaml"
    plan.write_text(f"base: s.yaml\nobjectives: {{ttft_p99_s: 2}}\nsearch: {{gpu: [h200_sxm, {value}]}}\n")
    told = RUNNER.invoke(app, ["plan", str(plan), "--quiet"])
    assert told.exit_code == 2 and "search.gpu: expected a GPU's name" in told.stderr


@pytest.mark.parametrize("value", ["5e-324", "1e-320", "1e300"])
def test_a_benchmark_of_numbers_out_of_this_world_is_refused(tmp_path: Path, value: str) -> None:
    (tmp_path / "s.yaml").write_text(SCENARIO)
    bench = tmp_path / "b.json"
    bench.write_text(
        '{"backend": "vllm", "num_prompts": 6, "max_concurrency": 2, "duration": 3.0, "completed": 6, '
        '"total_input_tokens": 5400, "total_output_tokens": 300, "request_throughput": 2.0, '
        f'"output_throughput": 100.0, "mean_ttft_ms": {value}, "median_tpot_ms": 14.8}}'
    )
    told = RUNNER.invoke(app, ["validate", "--bench", str(bench), "--scenario", str(tmp_path / "s.yaml")])
    assert told.exit_code == 2 and "mean_ttft_ms: expected a number above 0" in told.stderr


def test_prompts_of_a_benchmark_that_are_longer_than_any_are_refused(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(SCENARIO)
    bench = tmp_path / "b.json"
    bench.write_text(
        '{"backend": "vllm", "num_prompts": 6, "max_concurrency": 2, "duration": 3.0, "completed": 6, '
        '"total_input_tokens": 5400000000, "total_output_tokens": 300, "request_throughput": 2.0, '
        '"random_range_ratio": Infinity, '
        '"random_input_len": 5, "dataset_name": "random", "output_throughput": 100.0, "median_tpot_ms": 14.8}'
    )
    told = RUNNER.invoke(app, ["validate", "--bench", str(bench), "--scenario", str(tmp_path / "s.yaml")])
    assert (
        told.exit_code == 2 and "input.constant: expected a whole number from 1 to 1e7 tokens" in told.stderr
    )


@pytest.mark.parametrize("base", ["none.yaml", ".", "x" * 100_000, "'a\\0b'", "pipe", "/dev/stdin"])
@pytest.mark.parametrize("command", [["sweep", "--dry-run"], ["plan", "--quiet"]])
def test_a_base_that_cannot_be_read_is_told_where_it_is_named(
    tmp_path: Path, base: str, command: list[str]
) -> None:
    os.mkfifo(tmp_path / "pipe")
    file = tmp_path / "s.yaml"
    file.write_text(
        f"base: {base}\n" + ("grid: {gpu: [b200_sxm]}\n" if command[0] == "sweep" else "search: {}\n")
    )
    with within(60):
        told = RUNNER.invoke(app, [*command, str(file)])
    assert told.exit_code == 2 and isinstance(told.exception, SystemExit)
    assert told.stderr.startswith(f"{file}:1:7: ") and len(told.stderr) < 2000


def test_a_pipe_that_a_text_names_is_not_waited_for(tmp_path: Path) -> None:
    """An uploaded scenario, or a plan's, has no file of its own above what it extends."""
    os.mkfifo(tmp_path / "pipe")
    text = SCENARIO.replace("model: deepseek-v3.2", "extends: pipe")
    with within(60), pytest.raises(ScenarioError, match="not a regular file"):
        parse(text, str(tmp_path / "uploaded.yaml"))
    with within(60), pytest.raises(ScenarioError, match="not a regular file"):
        from_data({"extends": str(tmp_path / "pipe")})
