"""Commands that are killed while they write a result over an earlier one, and how what they leave is read."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pandas as pd

from sim.cli.files import PAGE
from sim.planner.sweep import JOURNAL, TABLE, WALL

OLD, NEW = "old", "new"
Told = dict[str, bytes]
"""What tells one result from another, by file; empty where there is none."""

SCENARIO: Final = """
model: deepseek-v2-lite
gpu: h200_sxm
deployment: {prefill: {gpus: 1}, decode: {gpus: 1, max_batch_per_gpu: 16}}
workload:
  arrivals: {poisson: {rate_per_s: 4}}
  lengths: {input: {lognormal: {mean: 300, cv: 1}}, output: {lognormal: {mean: 20, cv: 1}}}
  requests: 1500
price: {tier: rent_3yr}
"""
SWEEP: Final = """
base: s.yaml
grid:
  workload.arrivals.poisson.rate_per_s: [1, 2, 3]
  workload.requests: [300, 400, 500]
"""
PLAN: Final = """
model: deepseek-v3
profile: analytic
workload:
  arrivals: {poisson: {rate_per_s: 4}}
  lengths: {input: {constant: 1000}, output: {constant: 40}}
objectives: {ttft_p95_s: 2.0, tpot_p90_s: 0.06}
search:
  gpu: [h200_sxm]
  kind: [aggregated]
  deployment.serve.gpus: [8]
  deployment.serve.tp: [8, 4]
  deployment.serve.ep: [1]
"""
CASES: Final = ("P0301", "P0304")
"""Published single steps, so that both workers have something to do."""
RECORDS_FILE: Final = "records.jsonl"
"""Of `calibrate run`."""
DEVICE: Final = {"name": "a CPU", "memory_bytes": 6.4e10, "device": "cpu"}
RECORDS: Final = [
    {"operation": "gemm", "shape": {"m": m, "n": n, "k": 512}, "dtype": dtype, "us_median": 5 + m * n / 1e4, "ok": True,
     "options": {}, "us_p10": 4.9, "us_p90": 500.0, "source": "t", "backend": "torch", "environment": DEVICE}
    for dtype in ("bf16", "fp8") for m in (1, 2, 4, 8, 16, 32, 64) for n in (128, 256, 512, 1024)
] + [
    {"operation": "copy", "shape": {"bytes": 10**7}, "dtype": "bf16", "us_median": 900, "environment": DEVICE}
]  # fmt: skip


def lay_out(folder: Path) -> None:
    """What the commands read."""
    for name, text in (("s.yaml", SCENARIO), ("sweep.yaml", SWEEP), ("plan.yaml", PLAN)):
        (folder / name).write_text(text)
    for name, rows in ((OLD, RECORDS[: len(RECORDS) // 2] + RECORDS[-1:]), (NEW, RECORDS)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@dataclass(frozen=True)
class Killed:
    """A command with `--out`, as it is asked for an old result and for a new one."""

    name: str
    asked: Callable[[str, Path, Path], Sequence[str]]
    """(old or new, folder of inputs, folder of the result) -> arguments."""
    told: Callable[[Path], Told]
    """What a folder of results holds, the same for the same result. Raises where it is not whole."""
    grows: str = ""
    """The file that it appends to, if it does: any state between old and new is whole, and it goes on from there."""


def files(folder: Path) -> Told:
    """All files but for the time that it took, and the numbers that pages give their charts."""
    found = {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}
    timeless = re.compile(
        rb'"wall_s": [-+.e\d]+|seed \d+, \d+ s;|[\da-f]{8}-[\da-f]{4}-[\da-f]{4}-[\da-f]{4}-[\da-f]{12}'
    )
    return {name: timeless.sub(b"", content) for name, content in found.items()}


def simulated(folder: Path) -> Told:
    """A run without its page, which is drawn when the run is safe: a kill in between leaves the new run alone."""
    return {name: content for name, content in files(folder).items() if name != PAGE}


def swept(folder: Path) -> Told:
    """The table of a sweep, and a journal of whole lines but for the last one."""
    journal = folder / JOURNAL
    for line in journal.read_bytes().split(b"\n")[:-1] if journal.exists() else ():
        json.loads(line)
    if not (folder / TABLE).exists():
        return {}
    table: pd.DataFrame = pd.read_parquet(folder / TABLE)
    return {TABLE: table.drop(columns=WALL).to_csv().encode()}


def measured(folder: Path) -> Told:
    """The records of a calibration: whole lines but for the last one; a coverage that can be read."""
    coverage, records = folder / "coverage.json", folder / RECORDS_FILE
    if coverage.exists():
        json.loads(coverage.read_text())
    if not records.exists():
        return {}
    lines = records.read_bytes().split(b"\n")[:-1]
    for line in lines:
        json.loads(line)
    return {records.name: b"\n".join(lines)}


def _simulated(which: str, folder: Path, out: Path) -> list[str]:
    return ["run", str(folder / "s.yaml"), "--quiet", "--seed", str(int(which == NEW)), "--out", str(out)]


def _swept(which: str, folder: Path, out: Path) -> list[str]:
    seed = str(int(which == NEW))
    return [
        "sweep",
        str(folder / "sweep.yaml"),
        "--quiet",
        "--workers",
        "2",
        "--seed",
        seed,
        "--out",
        str(out),
    ]


def _planned(which: str, folder: Path, out: Path) -> list[str]:
    seed = str(int(which == NEW))
    return ["plan", str(folder / "plan.yaml"), "--quiet", "--workers", "2", "--seed", seed, "--out", str(out)]


def _validated(which: str, folder: Path, out: Path) -> list[str]:
    prompts = "20" if which == OLD else "30"
    return ["validate", *CASES, "--quiet", "--workers", "2", "--max-prompts", prompts, "--out", str(out)]


def _measured(which: str, folder: Path, out: Path) -> list[str]:
    minutes = "0.1" if which == OLD else "0.2"  # importing torch is among them
    return [
        "calibrate",
        "run",
        "--quiet",
        "--quick",
        "--device",
        "cpu",
        "--minutes",
        minutes,
        "--out",
        str(out),
    ]


def _fitted(which: str, folder: Path, out: Path) -> list[str]:
    return ["calibrate", "fit", str(folder / f"{which}.jsonl"), "--out", str(out)]


COMMANDS: Final = {
    command.name: command
    for command in (
        Killed("run", _simulated, simulated),
        Killed("sweep", _swept, swept),
        Killed("plan", _planned, files),
        Killed("validate", _validated, files),
        Killed("calibrate run", _measured, measured, grows=RECORDS_FILE),
        Killed("calibrate fit", _fitted, files),
    )
}
