"""Points run in a process of their own with a deadline: a hang or a crash costs one of them, and the run its time."""

# ruff: noqa: E402 (torch is optional: without it the module is skipped before the rest is imported)

import os
import signal
import time
from dataclasses import dataclass
from time import monotonic

import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'tokenworks[calibrate]'")

from calibrate import measure
from calibrate.cases import Case
from calibrate.environment import Device, Watch
from calibrate.kernels.families import FAMILIES
from calibrate.measure import Bench
from calibrate.records import RecordFile
from calibrate.session import Session
from calibrate.trial import Point
from calibrate.worker import Died, Failed, Overdue, Worker, ahead
from sim.catalog import model
from sim.model import operations as ops

CPU = Device("cpu", "a CPU", 1, 2**34, 2**20)


class Lost(Exception):
    lost = True


def answering():
    """A stand-in for kernels: what a request names happens."""
    asked = []

    def answer(request):
        asked.append(request)
        match request:
            case ("sleep", seconds):
                time.sleep(seconds)
            case "die":
                os.kill(os.getpid(), signal.SIGSEGV)
            case "raise":
                raise ValueError("no kernel image")
            case "lose":
                raise Lost("an illegal memory access")
            case ("touch", path):
                path.touch()
        return os.getpid(), len(asked)

    return answer


@pytest.fixture
def worker():
    made = Worker(answering)
    yield made
    made.close()


def test_one_process_answers_until_it_hangs_and_then_another(worker):
    first, _ = worker.ask("hello", 60)
    assert worker.ask("again", 60) == (first, 2)
    begin = monotonic()
    with pytest.raises(Overdue, match=r"within 0\.2 s"):
        worker.ask(("sleep", 600), 0.2)
    assert monotonic() - begin < 60
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)  # it is gone, not left behind
    second, asked = worker.ask("hello", 60)
    assert second != first
    assert asked == 1


def test_a_crash_is_told_with_its_signal(worker):
    with pytest.raises(Died, match="signal 11"):
        worker.ask("die", 60)
    assert worker.ask("hello", 60)[1] == 1


def test_an_exception_is_told_and_the_process_stays_unless_its_gpu_is_lost(worker):
    first, _ = worker.ask("hello", 60)
    with pytest.raises(Failed, match="no kernel image"):
        worker.ask("raise", 60)
    assert worker.ask("hello", 60)[0] == first
    with pytest.raises(Failed, match="illegal memory access"):
        worker.ask("lose", 60)
    assert worker.ask("hello", 60)[0] != first


def test_compiling_ahead_goes_on_after_crashes_and_ends_in_time(tmp_path):
    files = [tmp_path / str(n) for n in range(6)]
    requests = ["die", *(("touch", file) for file in files), "raise"]
    assert ahead(requests, 2, 120.0, answering) == 6
    assert all(file.exists() for file in files)
    assert ahead([("sleep", 3600)], 1, 0.5, answering) == 0


@dataclass(frozen=True)
class Scripted:
    """A worker whose answers take as long as a clock that the test turns says."""

    clock: list[float]
    takes_s: float

    def ask(self, request, seconds):
        self.clock[0] += min(self.takes_s, seconds)
        if self.takes_s > seconds:
            raise Overdue(f"no answer within {seconds:.3g} s")
        raise Failed("a stand-in measures nothing")

    def close(self):
        pass


def points():
    backend = next(b for b in FAMILIES["gemm"].backends if b.name == "torch")
    cases = [Case(ops.gemm("", "dense", m, 256, 256, "bf16"), model("deepseek-v3")) for m in range(1, 200)]
    return [Point(case, backend) for case in cases]


@pytest.mark.parametrize("takes_s", [0.5, 7.0, 29.0, 31.0, 1e6])
def test_the_minutes_are_kept_within_a_fifth_however_slow_kernels_are(takes_s, tmp_path, monkeypatch):
    """Three minutes of points that take half a second to forever, on a clock that only they move."""
    clock = [1000.0]
    monkeypatch.setattr("calibrate.session.monotonic", lambda: clock[0])
    monkeypatch.setattr(measure, "monotonic", lambda: clock[0])
    budget_s = 180.0
    with RecordFile(tmp_path, {"device": "none"}) as file:
        bench = Bench(CPU, {"device": "none"}, Watch(CPU), Scripted(clock, takes_s))
        bench.until = clock[0] + 1.1 * budget_s
        session = Session(points(), file)
        records = list(session.run(bench.measure, bench.give_up, budget_s))

    took = clock[0] - 1000.0
    assert took <= 1.2 * budget_s
    assert took >= min(0.8 * budget_s, 199 * takes_s)
    assert len(records) + len(session.pending) == 199
    # a point that the end of the run cut off is not held against it; one beyond its own 30 s is
    assert {r.error for r in records} <= {"a stand-in measures nothing", "no answer within 30 s"}
    assert not (tmp_path / "in_flight.json").exists()


def test_a_real_point_comes_back_from_its_process_as_it_would_from_this_one():
    from calibrate.trial import answering as trials  # noqa: PLC0415

    bench = Bench(CPU, {"device": "cpu"}, Watch(CPU), Worker(trials, CPU))
    try:
        record = bench.measure(points()[0], [])
    finally:
        bench.close()
    here = Bench(CPU, {"device": "cpu"}, Watch(CPU)).measure(points()[0], [])
    assert record.ok
    assert (record.key, record.deviation, record.method) == (here.key, here.deviation, here.method)
