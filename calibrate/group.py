"""Processes, one per GPU, that run communication together: started when first needed, kept for the whole run.

The parent sends each process the same point; rank 0 answers with the error of the worst rank and the times of the
slowest one, sample by sample.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from queue import Empty
from typing import Any, Final, Literal

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from calibrate.cases import Case
from calibrate.environment import Device
from calibrate.kernels.families import FAMILIES
from calibrate.kernels.library import describe_error
from calibrate.timing import MAX_SAMPLES, MIN_SAMPLES, WARM_UPS, Timing, spin_cycles
from sim.parallel import end_with_parent

CALLS: Final = 8
"""Calls in a row per sample. The hosts of the ranks leave a barrier some microseconds apart, and the first call waits
for the last of them: an eighth of that is in each call, nothing where the GPUs spin until all have queued theirs."""
ANSWER_S: Final = 120.0
"""Longest wait for a point; NCCL and DeepEP start up on the first one."""

Kind = Literal["cpu", "cuda"]
Answer = tuple[float, tuple[float, ...]] | str


class Group:
    """A world of `size` processes on this machine. Raises RuntimeError where a point fails or does not answer."""

    def __init__(self, size: int, device: Device) -> None:
        self.size = size
        self.device = device
        self._folder = tempfile.TemporaryDirectory()
        context = mp.get_context("spawn")
        self._answers: Any = context.Queue()
        self._requests = [context.Queue() for _ in range(size)]
        meeting = f"file://{Path(self._folder.name) / 'meeting'}"
        self._processes = [
            context.Process(
                target=_work,
                args=(rank, size, device, meeting, self._requests[rank], self._answers),
                daemon=True,
            )
            for rank in range(size)
        ]
        for process in self._processes:
            process.start()

    def run(
        self, case: Case, backend: str, tolerance: float, seconds: float, wait_s: float = ANSWER_S
    ) -> tuple[float, Timing | None]:
        """Error of the worst rank and, where it is within the tolerance, the times of the slowest.

        Raises RuntimeError for what a rank raises, TimeoutError where no answer comes within `wait_s`.
        """
        for requests in self._requests:
            requests.put((case, backend, tolerance, seconds))
        try:
            answer: Answer = self._answers.get(timeout=max(wait_s, 0.0))
        except Empty:
            self.close()
            raise TimeoutError(f"no answer from {self.size} processes within {wait_s:.3g} s") from None
        if isinstance(answer, str):
            self.close()
            raise RuntimeError(answer)
        deviation, samples_us = answer
        return deviation, Timing(
            samples_us, "clock" if self.device.kind == "cpu" else "events"
        ) if samples_us else None

    @property
    def alive(self) -> bool:
        """Whether all processes still run."""
        return all(process.is_alive() for process in self._processes)

    def close(self) -> None:
        """End the processes that this group started."""
        for process in self._processes:
            process.terminate()
            process.join()
        self._folder.cleanup()


def _work(rank: int, size: int, device: Device, meeting: str, requests: Any, answers: Any) -> None:
    """A rank: meets the others, then answers points until its parent ends it, or ends."""
    end_with_parent()
    if device.kind == "cuda":
        torch.cuda.set_device(rank)
    else:
        torch.set_num_threads(1)
    backend = "nccl" if device.kind == "cuda" else "gloo"
    dist.init_process_group(backend, init_method=meeting, rank=rank, world_size=size)
    while True:
        case, name, tolerance, seconds = requests.get()
        try:
            answer: Answer = _measure(case, name, tolerance, seconds, device)
        except Exception as error:
            answers.put(f"rank {rank}: {describe_error(error)}")
            raise
        if rank == 0:
            answers.put(answer)


def _measure(case: Case, name: str, tolerance: float, seconds: float, device: Device) -> Answer:
    family = FAMILIES[case.operation.kernel]
    taking_part = case.size("ep" if "ep" in case.operation.shape else "gpus")
    generator = torch.Generator(f"cuda:{dist.get_rank()}" if device.kind == "cuda" else "cpu")
    tensors = family.make(case, device, generator)
    backend = next(b for b in family.backends if b.name == name and not b.refuses(case, device))
    call = backend.build(case, tensors)
    inside = dist.get_rank() < taking_part
    deviation = 0.0
    if inside:
        output = call()
        deviation = family.error(case, tensors, output() if callable(output) else output)
    deviation = _worst(deviation, device)
    if not deviation <= tolerance:
        return deviation, ()
    if inside:
        for _ in range(WARM_UPS):
            call()
    timed = call if inside else _nothing
    first_s = _each_s(timed, device)
    count = max(MIN_SAMPLES, min(MAX_SAMPLES, int(seconds / CALLS / max(first_s, 1e-9))))
    return deviation, tuple(_each_s(timed, device) * 1e6 for _ in range(count))


def _nothing() -> None:
    """What a rank outside the group does meanwhile."""


def _each_s(call: Callable[[], Any], device: Device) -> float:
    """Seconds of one of `CALLS` calls in a row on the slowest rank; all ranks start together."""
    dist.barrier()
    if device.kind == "cpu":
        begin_s = time.perf_counter()
        for _ in range(CALLS):
            call()
        return _worst((time.perf_counter() - begin_s) / CALLS, device)
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda._sleep(spin_cycles(CALLS))
    begin.record()
    for _ in range(CALLS):
        call()
    end.record()
    end.synchronize()
    return _worst(float(begin.elapsed_time(end)) * 1e-3 / CALLS, device)


def _worst(value: float, device: Device) -> float:
    """Largest value over all ranks, infinity included."""
    where = f"cuda:{dist.get_rank()}" if device.kind == "cuda" else "cpu"
    tensor = torch.tensor(value, dtype=torch.float64, device=where)
    dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
    return float(tensor)
