"""One point in this process: make inputs, compare with the reference, and only then time it."""

import contextlib
import gc
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

import torch

from calibrate.cases import Case
from calibrate.environment import Device
from calibrate.kernels.backend import Backend, Call, Family, Tensors
from calibrate.kernels.families import FAMILIES
from calibrate.kernels.library import describe_error
from calibrate.records import Key, operation_key
from calibrate.timing import Timing, copies_needed, time_calls

SECONDS: Final = {"cpu": 0.05, "cuda": 0.1}
"""Timed seconds of one point, by device, after warm-up."""

Outcome = tuple[float, Timing | None]
"""Error of the output, and its times if it is correct."""


@dataclass(frozen=True)
class Point:
    """A case and the backend to run it with."""

    case: Case
    backend: Backend

    @property
    def key(self) -> Key:
        """Identity of the point in a records file."""
        return operation_key(self.case.operation, self.backend.name)

    @property
    def family(self) -> Family:
        """The family that makes its inputs and judges its output."""
        return FAMILIES[self.case.operation.kernel]


def tolerance(point: Point) -> float:
    """Largest error of a correct kernel: the family's, and what the backend's own arithmetic may add."""
    return point.family.tolerance + point.backend.loses(point.case)


class TrialFailed(Exception):
    """What a kernel raised, in one line; `lost` where the GPU answers no more."""

    def __init__(self, reason: str, lost: bool) -> None:
        super().__init__(reason)
        self.lost = lost


class Trials:
    """Runs points on a device, in this process. Raises TrialFailed for what a kernel raises."""

    def __init__(self, device: Device) -> None:
        self.device = device
        if device.kind == "cpu":
            torch.set_num_threads(1)

    def run(self, point: Point, timed: bool = True) -> Outcome:
        """Error and times of a point; with `timed` false it is compiled and compared only."""
        try:
            with torch.inference_mode():
                return self._run(point, timed)
        except Exception as error:
            raise TrialFailed(describe_error(error), self._lost()) from error
        finally:
            self._clean()

    def _run(self, point: Point, timed: bool) -> Outcome:
        family = point.family
        generator = torch.Generator(self.device.kind)
        generator.manual_seed(zlib.crc32(repr(point.key).encode()))
        tensors = family.make(point.case, self.device, generator)
        call = point.backend.build(point.case, tensors)
        deviation = family.error(point.case, tensors, _output(call))
        if not timed or not deviation <= tolerance(point):  # NaN is wrong too
            return deviation, None
        touched, copies = self._copies(point, tensors, generator)
        calls = chain([call], copies)
        return deviation, time_calls(calls, touched, self.device, SECONDS[self.device.kind])

    def _copies(
        self, point: Point, tensors: Tensors, generator: torch.Generator
    ) -> tuple[int, Iterator[Call]]:
        """Bytes that one call touches, and the calls on further inputs that leave its own out of the L2."""
        held = sum(tensor.nbytes for tensor in tensors.values())
        touched = min(held, max(1, round(point.case.operation.bytes)))
        wanted = copies_needed(touched, held, self.device)
        more = (point.family.make(point.case, self.device, generator) for _ in range(wanted - 1))
        return touched, (point.backend.build(point.case, each) for each in more)

    def _lost(self) -> bool:
        """Whether the GPU's context is dead: an illegal access makes every later call fail."""
        if self.device.kind == "cpu":
            return False
        try:
            torch.cuda.synchronize()
            torch.zeros(1, device="cuda").add_(1).item()
        except torch.OutOfMemoryError:
            return False  # it answers; what fills its memory goes with the failed point
        except RuntimeError:
            return True
        return False

    def _clean(self) -> None:
        if self.device.kind == "cuda":
            gc.collect()
            with contextlib.suppress(
                RuntimeError
            ):  # a lost GPU frees nothing, and must not hide that it is lost
                torch.cuda.empty_cache()


def _output(call: Call) -> Any:
    """Output of one call; see `Backend.build` for outputs that must be rearranged first."""
    output = call()
    return output() if callable(output) else output


Request = tuple[Case, str, bool]
"""A case, the name of its backend, and whether to time it: what travels to another process."""


def answering(device: Device) -> Any:
    """What a worker process runs: requests -> outcomes."""
    trials = Trials(device)

    def answer(request: Request) -> Outcome:
        case, name, timed = request
        family = FAMILIES[case.operation.kernel]
        backend = next(b for b in family.backends if b.name == name and not b.refuses(case, device))
        return trials.run(Point(case, backend), timed)

    return answer
