"""Mutated scenarios, files and uploads end in an answer or in a sentence. Many: `make fuzz`."""

import os
import time
from pathlib import Path

import pytest
from fuzz_case import KINDS, PAGES, RUNNER, SCENARIOS
from fuzz_workers import judged

from sim.cli import app
from sim.files import read_regular

CASES = {SCENARIOS: 400, "traces": 150, "configs": 80, "records": 100, "profiles": 30, PAGES: 100, "sweeps": 50,
         "plans": 100, "anchors": 50, "benches": 40, "launches": 80, "steps": 40, "tables": 60}  # fmt: skip
"""The same on every machine, however busy; a process of its own judges each kind in two or three seconds, and the
scenarios in ten."""
RUNS = 4
"""Scenarios among them that are run as well."""
SEED = 1


@pytest.mark.parametrize("kind", KINDS)
def test_mutated_input_ends_in_an_answer_or_a_sentence(kind: str) -> None:
    verdicts = [*judged(CASES[kind], RUNS if kind == SCENARIOS else 0, SEED, kind=kind)]
    assert not [f"case {v.number}: {v.fault}\n{v.detail}" for v in verdicts if v.fault]
    assert len(verdicts) == CASES[kind]
    assert sum(v.passed for v in verdicts) >= len(verdicts) / 20


HEAD = "model: deepseek-v3.2\ngpu: h200_sxm\n"
PLAIN = {
    "deployment": "{serve: {gpus: 8, ep: 8}}",
    "workload": "{requests: 5, arrivals: {poisson: {rate_per_s: 2}}, lengths: {input: {constant: 100}, output: "
    "{constant: 5}}}",
}


def scenario(folder: Path, **sections: str) -> Path:
    file = folder / "s.yaml"
    file.write_text(HEAD + "".join(f"{key}: {text}\n" for key, text in {**PLAIN, **sections}.items()))
    return file


def workload(arrivals: str = "{poisson: {rate_per_s: 2}}", lengths: str = "{constant: 100}") -> str:
    return f"{{requests: 5, arrivals: {arrivals}, lengths: {{input: {lengths}, output: {{constant: 5}}}}}}"


@pytest.mark.parametrize(
    ("sections", "key"),
    [
        ({"deployment": "{serve: {gpus: 1000000000000, tp: 7}}"}, "deployment.serve.gpus"),
        ({"deployment": "{serve: {gpus: 8, ep: 8, workers: 1000000000000}}"}, "deployment.serve.workers"),
        ({"deployment": "{serve: {gpus: 8, ep: 8, workers: 65536}}"}, "at most 100,000 GPUs"),
        ({"deployment": "{serve: {gpus: 8, ep: 8}}", "experts": "{popularity_sigma: 300}"}, "popularity_sigma"),
        ({"workload": workload("{poisson: {rate_per_s: 1.0e+9}}")}, "rate_per_s"),
        ({"workload": workload("{poisson: {rate_per_s: 5.0e-324}}")}, "rate_per_s"),
        ({"workload": workload("{gamma: {rate_per_s: 2, cv: 1.0e+200}}")}, "cv"),
        ({"workload": workload("{gamma: {rate_per_s: 2, cv: 1.0e-200}}")}, "cv"),
        ({"workload": workload(lengths="{lognormal: {mean: 1.0e+19, cv: 1}}")}, "mean"),
        ({"workload": workload(lengths="{lognormal: {mean: 0.5, cv: 1}}")}, "mean"),
        ({"workload": workload(lengths="{lognormal: {mean: 1000, cv: 1.0e+200}}")}, "cv"),
        ({"scheduling": "{host_overhead_s: 1.0e+154}"}, "host_overhead_s"),
        ({"prefix_cache": "{enabled: true, disk_gb: 1.0e+305}"}, "disk_gb"),
        ({"duration_s": "1.0e+200"}, "duration_s"),
        ({"profile": "x" * 1000}, "profile"),
        ({"experts": "{counts: deep.json}"}, "not a table of expert counts"),
        ({"workload": "{trace: clients.jsonl, arrivals: {poisson: {rate_per_s: 5}}}", "duration_s": "6"}, ""),
    ],
)  # fmt: skip
def test_numbers_out_of_this_world_are_refused_at_their_key(
    tmp_path: Path, sections: dict[str, str], key: str
) -> None:
    (tmp_path / "deep.json").write_text("[" * 100_000)
    (tmp_path / "clients.jsonl").write_text(
        '{"client": 0, "window_s": 600, "windows": [[2400, 51, "gamma", 1]], '
        '"lengths": [{"from_s": 0, "input": [[100], [1]], "output": [[10], [1]]}]}'
    )
    started = time.process_time()
    told = RUNNER.invoke(app, ["check", str(scenario(tmp_path, **sections))])
    assert isinstance(told.exception, SystemExit | None), told.exception
    assert time.process_time() - started < 10
    assert told.exit_code == (2 if key else 0) and key in told.output
    assert len(told.output) < 1500


@pytest.mark.parametrize(
    "name", ["/dev/zero", "/dev/stdin", "/proc/self/mem", "/proc/kmsg", "pipe", ".", "big"]
)
def test_only_regular_files_of_a_limited_size_are_read(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "big").open("wb") as file:
        file.truncate(3 * 2**30)  # takes no room on the disk
    with pytest.raises(OSError, match=r"not a regular file|[Dd]irectory|larger than"):
        read_regular(tmp_path / name if name[0] != "/" else Path(name), 2**20)
    for key in ("extends", "model", "profile"):
        told = RUNNER.invoke(app, ["check", str(scenario(tmp_path, **{key: str(tmp_path / name)}))])
        assert told.exit_code == 2 and isinstance(told.exception, SystemExit)


@pytest.mark.parametrize(
    "text",
    [
        "{" + ", ".join(f"k{i}: 1" for i in range(2000)) + "}",
        "model: " + "x" * 100_000,
        HEAD + "gpux: " + "y" * 100_000,
        "extends: " + "z" * 100_000,
        HEAD + "profile: " + "x y " * 10_000,
        HEAD + "".join(f"k{i}: 1\n" for i in range(5000)),
        "{" + ", ".join("k: 1" for _ in range(5000)) + "}",
        "x: [" + ", ".join('"\\x01"' for _ in range(5000)) + "]",
        HEAD + "speculation: {acceptance: [" + ", ".join("x" for _ in range(5000)) + "]}",
    ],
    ids=["many keys in one line", "long name", "long value", "long file", "long words", "many lines",
         "many duplicates", "many unprintable texts", "a long list"],
)  # fmt: skip
def test_an_error_never_quotes_more_than_one_can_read(tmp_path: Path, text: str) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(text)
    started = time.process_time()
    told = RUNNER.invoke(app, ["check", str(file)])
    assert told.exit_code == 2 and isinstance(told.exception, SystemExit)
    assert len(told.output) < 10_000 and told.output.count("\n") <= 20
    assert time.process_time() - started < 5
