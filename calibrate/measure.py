"""Points become records: what runs where, each point's outcome with its conditions and its share of the ceilings."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import inf, isfinite
from time import monotonic
from typing import Any, Final

from calibrate.cases import Case
from calibrate.environment import Device, Watch
from calibrate.group import ANSWER_S, Group
from calibrate.kernels.families import FAMILIES
from calibrate.records import Measurement
from calibrate.session import OutOfTime
from calibrate.timing import Timing
from calibrate.trial import SECONDS, Outcome, Point, TrialFailed, Trials, tolerance
from calibrate.worker import Died, Failed, Overdue, Worker
from sim.cost.record import CALIBRATION

SOURCE: Final = CALIBRATION
DEADLINE_S: Final = {"cpu": 30.0, "cuda": 60.0}
"""Longest time of one point, by device: inputs, compilation, comparison and times."""


@dataclass(frozen=True)
class Refusal:
    """A backend that cannot run a family here, and why."""

    kernel: str
    backend: str
    reason: str


@dataclass(frozen=True)
class Ceilings:
    """The fastest that this device was seen to be: FLOP/s by dtype, and bytes/s of a copy."""

    flop_per_s: Mapping[str, float]
    bytes_per_s: float | None

    def fraction(self, flop: float, moved_bytes: float, dtype: str, seconds: float) -> float | None:
        """Least time that the ceilings allow over the measured one; None where no ceiling applies.

        max(FLOP / FLOP_per_s, bytes / bytes_per_s) / seconds: the roofline with measured roofs.
        """
        least = []
        if flop and dtype in self.flop_per_s:
            least.append(flop / self.flop_per_s[dtype])
        if self.bytes_per_s:
            least.append(moved_bytes / self.bytes_per_s)
        return max(least) / seconds if least else None


def find_ceilings(records: Iterable[Measurement]) -> Ceilings:
    """Ceilings from what has been measured so far: the best GEMM of each dtype and the best copy.

    FP8 inputs can always be widened, so their ceiling is at least that of BF16.
    """
    flop_per_s: dict[str, float] = {}
    bytes_per_s: list[float] = []
    for record in records:
        if record.us_median is None:
            continue
        seconds = record.us_median * 1e-6
        if record.operation == "gemm":
            flop_per_s[record.dtype] = max(flop_per_s.get(record.dtype, 0.0), record.flop / seconds)
        if record.operation == "copy":
            bytes_per_s.append(record.bytes / seconds)
    if {"bf16", "fp8"} <= flop_per_s.keys():
        flop_per_s["fp8"] = max(flop_per_s["fp8"], flop_per_s["bf16"])
    return Ceilings(flop_per_s, max(bytes_per_s, default=None))


def find_points(cases: Sequence[Case], device: Device) -> tuple[list[Point], list[Refusal]]:
    """Points in order of value, and the backends that some family asked for in vain.

    First every case with its preferred backend that can run it, then the cases once more with the others.
    """
    first, others = [], []
    refusals: dict[tuple[str, str, str], Refusal] = {}
    for case in cases:
        family = FAMILIES[case.operation.kernel]
        usable = []
        for backend in family.backends:
            if case.operation.dtype not in backend.dtypes:
                continue
            if reason := backend.refuses(case, device):
                refusals.setdefault(
                    (family.kernel, backend.name, reason), Refusal(family.kernel, backend.name, reason)
                )
            else:
                usable.append(Point(case, backend))
        first += usable[:1]
        others += usable[1:]
    return first + others, list(refusals.values())


class Bench:
    """Measures points on one device; never raises for what a kernel does.

    In this process, or with `worker` in one of its own, where each point has a deadline.
    """

    def __init__(
        self, device: Device, environment: Mapping[str, Any], watch: Watch, worker: Worker | None = None
    ) -> None:
        self.device = device
        self.environment = environment
        self.watch = watch
        self.until = inf
        """When the run must end, on the monotonic clock."""
        self._worker = worker
        self._trials = Trials(device) if worker is None else None
        self._group: Group | None = None

    def start(self) -> None:
        """Have the process of the points ready, so that no point's time is spent on its start."""
        if self._worker is not None:
            with suppress(Overdue):  # the first point says so
                self._worker.start(ANSWER_S)

    def measure(self, point: Point, records: Iterable[Measurement]) -> Measurement:
        """The record of a point; `records` so far give the ceilings. Raises OutOfTime."""
        begin = monotonic()
        try:
            deviation, timing = self._run(point)
        except (TrialFailed, Failed, Died, RuntimeError) as error:
            return self._record(point, error=str(error))
        if timing is None:
            wrong = f"disagrees with its reference: {deviation:.2e}, at most {tolerance(point):.0e} allowed"
            return self._record(point, error=wrong, deviation=deviation if isfinite(deviation) else None)
        return self._timed(point, deviation, timing, begin, find_ceilings(records))

    def try_point(self, point: Point) -> Measurement | None:
        """The record of a point without ceilings; None where time ran out."""
        try:
            return self.measure(point, ())
        except OutOfTime:
            return None

    def close(self) -> None:
        """End the processes that points and communication ran in."""
        if self._worker is not None:
            self._worker.close()
        if self._group is not None:
            self._group.close()
            self._group = None

    def give_up(self, point: Point, reason: str) -> Measurement:
        """The failed record of a point that is not tried again."""
        return self._record(point, error=reason)

    def _run(self, point: Point) -> Outcome:
        alone = point.case.operation.group != "communication"
        if alone and self._trials is not None:
            return self._trials.run(point)
        allowed = DEADLINE_S[self.device.kind] if alone else ANSWER_S
        left = self.until - monotonic()
        try:
            return self._asked(point, alone, min(allowed, left))
        except (Overdue, TimeoutError) as error:
            if left < allowed:
                raise OutOfTime from error
            raise Failed(str(error)) from error

    def _asked(self, point: Point, alone: bool, within_s: float) -> Outcome:
        case, name = point.case, point.backend.name
        if not alone:
            seconds = SECONDS[self.device.kind]
            return self._processes().run(case, name, tolerance(point), seconds, within_s)
        assert self._worker is not None
        outcome: Outcome = self._worker.ask((case, name, True), within_s)
        return outcome

    def _processes(self) -> Group:
        """The group that runs communication, started anew where it has ended."""
        if self._group is None or not self._group.alive:
            self._group = Group(self.device.count, self.device)
        return self._group

    def _record(self, point: Point, **fields: Any) -> Measurement:
        operation = point.case.operation
        return Measurement(
            operation=operation.kernel,
            shape={axis: float(value) for axis, value in operation.shape.items()},
            dtype=operation.dtype,
            options=dict(operation.options),
            backend=point.backend.name,
            flop=operation.flop,
            bytes=operation.bytes,
            source=SOURCE,
            environment=self.environment,
            **{"ok": False, "us_median": None, **fields},
        )

    def _timed(
        self, point: Point, deviation: float, timing: Timing, begin: float, ceilings: Ceilings
    ) -> Measurement:
        operation, seconds = point.case.operation, timing.median_us * 1e-6
        conditions = self.watch.conditions(begin)
        flags = [
            name
            for name, raised in (
                ("unstable", timing.unstable),
                ("throttled", "throttled" in conditions),
                ("warm", timing.warm),
            )
            if raised
        ]
        return self._record(
            point,
            ok=True,
            us_median=timing.median_us,
            us_p10=timing.p10_us,
            us_p90=timing.p90_us,
            samples_us=timing.samples_us,
            method=timing.method,
            deviation=deviation,
            flags=tuple(flags),
            conditions=conditions,
            fraction_of_ceiling=ceilings.fraction(operation.flop, operation.bytes, operation.dtype, seconds),
        )
