"""How far off the simulation was where measurements are published: `validated.csv`, one deployment per line.

The file is the digest of `tokenworks validate` that `python -m sim.validation.digest` writes; the measurements'
sources stand in `sim/validation/data/README.md` and `sim/validation/points.yaml`.
"""

import csv
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import cache
from importlib import resources
from io import StringIO
from math import log2
from typing import Any, Final, Literal

from sim.catalog.facts import read, values

Serving = Literal["aggregated", "disaggregated", "prefill", "decode"]
"""A service of one pool, a service of two (with the layout of the workers that decode), or one phase of one."""

FILE: Final = "validated.csv"
WORDS: Final = ("model", "gpu", "engine", "weights", "serving")
FLAGS: Final = ("drafts", "even", "held_out")
LABELS: Final = {"tpot": "TPOT", "ttft": "TTFT", "throughput": "tokens/s"}
COUNTS: Final = ("gpus", "tp", "ep", "cases")


@dataclass(frozen=True, slots=True)
class Served:
    """A pool in the catalog's names: its family (all but the three sizes), and its layout in it."""

    model: str
    gpu: str
    engine: str
    weights: str
    """Format of the weights."""
    serving: Serving
    drafts: bool
    """Whether decode steps verify drafts; prompts do not care."""
    gpus: int
    """Of one worker."""
    tp: int
    ep: int
    even: bool = False
    """Whether every expert is equally popular: published services were not, and are simulated with skewed experts."""

    @property
    def family(self) -> tuple[Any, ...]:
        """What a pool must share with another for its error to say anything about it."""
        return self.model, self.gpu, self.engine, self.weights, self.serving, self.drafts, self.even

    def doublings(self, other: "Served") -> float:
        """How far apart two layouts are: doublings of GPUs, of EP and of attention DP, added up."""
        pairs = (self.gpus, other.gpus), (self.ep, other.ep), (self.gpus // self.tp, other.gpus // other.tp)
        return sum(abs(log2(mine / theirs)) for mine, theirs in pairs)

    def __str__(self) -> str:
        drafts = (" with drafts" if self.drafts else "") + (" with even experts" if self.even else "")
        layout = f"{self.gpus} GPUs TP{self.tp} EP{self.ep}"
        return f"{self.model} {self.weights} on {self.gpu}, {self.engine}, {self.serving}{drafts}, {layout}"


@dataclass(frozen=True, slots=True)
class Validated:
    """Absolute relative errors of the published measurements of one pool: median and 90% point; None where a
    metric was not published.
    """

    pool: Served
    held_out: bool
    """Whether nothing was fitted on them and no mechanism was built by them."""
    cases: int
    tpot: float | None
    tpot_p90: float | None
    ttft: float | None
    ttft_p90: float | None
    throughput: float | None
    throughput_p90: float | None


@cache
def validated() -> tuple[Validated, ...]:
    """Every published deployment that was simulated."""
    text = resources.files("sim.catalog").joinpath(FILE).read_text(encoding="utf-8")
    return tuple(_read(line) for line in csv.DictReader(StringIO(text)))


def _read(line: dict[str, str]) -> Validated:
    pool = {field.name for field in fields(Served)}
    cells = {name: _cell(name, text) for name, text in line.items()}
    rest = {name: value for name, value in cells.items() if name not in pool}
    return Validated(Served(**{name: cells[name] for name in pool}), **rest)


def _cell(name: str, text: str) -> Any:
    if name in WORDS:
        return text
    if name in FLAGS:
        return {"yes": True, "no": False}[text]
    if name in COUNTS:
        return int(text)
    return float(text) if text else None


def written(entries: Iterable[Validated]) -> str:
    """The text of `validated.csv` for these entries."""
    file = StringIO()
    lines = [{**(flat := asdict(entry)).pop("pool"), **flat} for entry in entries]
    writer = csv.DictWriter(file, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    for line in lines:
        writer.writerow({name: _text(value) for name, value in line.items()})
    return file.getvalue()


def _text(value: Any) -> Any:
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else value


def in_words(error: Mapping[str, Any] | None) -> str:
    """The `expected_error` of a run as a person reads it: the errors, and which published deployment they are of."""
    if error is None:
        return "unknown: no published case shares model, GPU, engine, formats, drafts and spread of experts"
    known = [f"{LABELS[metric]} {error[metric]:.1%}" for metric in LABELS if error[metric] is not None]
    if error.get("anchor"):
        return f"{', '.join(known)} (median of {error['cases']} points, {error['family']})"
    cases = "1 published case" if error["cases"] == 1 else f"median of {error['cases']} published cases"
    basis = "held out" if error["held_out"] else "not held out"
    away = f"{error['doublings']:.3g} doublings of GPUs, EP and DP away" if error["doublings"] else ""
    if not near(error):
        off = f"{', '.join(known)} off ({cases}, {basis}: {error['family']})"
        return f"unknown: nothing near was measured; the nearest, {away}, was {off}"
    return f"{', '.join(known)} ({cases}, {basis}{f', {away}' if away else ''}: {error['family']})"


def near(error: Mapping[str, Any]) -> bool:
    """Whether an `expected_error` is that of a layout like the run's: farther ones say nothing of it."""
    return bool(error["doublings"] <= values(read("expected_error.yaml"))["near_doublings"])
