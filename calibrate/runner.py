"""A calibration from the device to its records, without a word to a terminal: for the command and the bare check."""

import os
from pathlib import Path
from typing import Any, Final

from calibrate.cases import QUICK_CASES, plan
from calibrate.environment import Watch, describe, find_device
from calibrate.measure import Bench, Refusal, find_points
from calibrate.records import Measurement, RecordFile
from calibrate.session import Session
from calibrate.trial import Point, answering
from calibrate.worker import Worker, ahead
from sim.catalog import model as find_model

GRACE: Final = 0.1
"""Share of the time budget that the last point may take beyond it, and that compiling ahead takes before it."""
COMPILERS: Final = 4
"""Processes at most that compile kernels ahead at the same time."""
SMALL: Final = 0.02
"""Share of the device's memory that the inputs of a kernel compiled ahead occupy at most."""
MINUTES: Final = {"full": 10.0, "quick": 2.5}
"""Time budgets unless another is asked for; what is left then waits for the next run."""


def prepare(
    model: str, out: Path, quick: bool, kind: str | None
) -> tuple[Session, Bench, list[Refusal], dict[str, Any]]:
    """Everything up to the first point. Raises RecordsError, UnknownName or ValueError."""
    catalog_model = find_model(model)
    device = find_device(kind)
    environment = {**describe(device), "model": catalog_model.name}
    cases = plan(catalog_model, device.kind, device.memory_bytes, device.count)
    whole, refusals = find_points(cases, device)
    points = find_points(cases[: QUICK_CASES[device.kind]], device)[0] if quick else whole
    bench = Bench(device, environment, Watch(device), Worker(answering, device))
    return Session(points, RecordFile(out, environment), whole), bench, refusals, environment


def compile_ahead(session: Session, bench: Bench, seconds: float) -> tuple[int, int]:
    """Have the kernels of the points to come compiled by several processes at once; returns how many of how many were.

    Triton, DeepGEMM and flashinfer keep them on disk, where the process that measures finds them. A CPU has none.
    """
    device = bench.device
    compiled = [
        (point.case, point.backend.name, False)
        for point in session.pending
        if isinstance(point, Point)
        and point.backend.needs
        and point.case.footprint_bytes <= SMALL * device.memory_bytes
    ]
    if device.kind == "cpu" or not compiled:
        return 0, 0
    workers = max(1, min(COMPILERS, (os.cpu_count() or 1) - 1))
    return ahead(compiled, workers, seconds, answering, device), len(compiled)


def label(record: Measurement) -> str:
    """A point in words: family, backend, dtype and shape."""
    shape = " ".join(f"{axis}={value:g}" for axis, value in record.shape.items())
    return f"{record.operation} {record.dtype} by {record.backend} at {shape}"
