"""Simulations in child processes: they run, tell their progress, end, fail with a sentence, and can be cancelled."""

import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dashboard import jobs as module
from dashboard.jobs import Busy, Job, Jobs
from sim import result

SMALL = """
model: deepseek-v3.2
gpu: h200_sxm
profile: analytic
deployment: {serve: {gpus: 8, ep: 8, max_batch_per_gpu: 64}}
workload:
  arrivals: {poisson: {rate_per_s: 2}}
  lengths: {input: {constant: 1000}, output: {constant: 50}}
duration_s: 60
"""
ENDLESS = SMALL.replace("duration_s: 60", "duration_s: 4000000")


@pytest.fixture
def jobs() -> Iterator[Jobs]:
    one = Jobs()
    yield one
    one.close()


def wait(job: Job) -> str:
    for _ in range(6000):
        if job.state != "running":
            return job.state
        time.sleep(0.1)
    pytest.fail("the job never ended")


def test_a_job_runs_once_and_leaves_its_files(jobs: Jobs) -> None:
    assert jobs.find(SMALL) is None
    job = jobs.start(SMALL)
    assert jobs.start(SMALL) is job
    assert wait(job) == "done"
    assert jobs.start(SMALL) is job and jobs.find(SMALL) is job
    saved = result.load(job.result)
    done, total = job.progress
    assert done == total == saved.json()["requests"]["arrived"]
    assert (job.result / "report.html").exists()


def test_a_cancelled_job_ends_and_may_start_again(jobs: Jobs) -> None:
    job = jobs.start(ENDLESS)
    assert job.state == "running"
    job.cancel()
    assert job.state == "cancelled"
    again = jobs.start(ENDLESS)
    assert again is not job
    again.cancel()


def test_a_failed_job_says_why(jobs: Jobs) -> None:
    job = jobs.start(SMALL.replace("gpus: 8", "gpus: 1").replace("ep: 8", "ep: 1"))
    assert wait(job) == "failed"
    assert "does not fit" in job.message


def test_what_exceeds_the_machine_waits_for_its_turn(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.os, "cpu_count", lambda: 1)
    first, second = jobs.start(ENDLESS), jobs.start(SMALL)
    assert (first.state, second.state) == ("running", "waiting")
    third = jobs.start(SMALL.replace("60", "61"))
    third.cancel()
    assert third.state == "cancelled"
    first.cancel()
    assert jobs.find(SMALL) is second
    assert second.state == "running"
    second.cancel()


def test_the_queue_has_an_end(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_UNDER_WAY", 1)
    jobs.start(ENDLESS)
    with pytest.raises(Busy, match="under way"):
        jobs.start(SMALL)


def test_the_oldest_files_go_first(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT", 0)
    first = jobs.start(ENDLESS)
    first.cancel()
    jobs.start(SMALL).cancel()
    assert jobs.find(ENDLESS) is None
    assert not first.folder.exists()


def test_closing_leaves_nothing_behind() -> None:
    one = Jobs()
    job = one.start(ENDLESS)
    one.close()
    assert job.state == "cancelled"
    assert not one.folder.exists()


def child(monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Let jobs run this script in place of the command."""
    monkeypatch.setattr(module, "COMMAND", (sys.executable, "-c", script))


KILLED_BY_ITSELF = "import os, signal; os.kill(os.getpid(), signal.{})"


@pytest.mark.parametrize(
    ("script", "says"),
    [
        (KILLED_BY_ITSELF.format("SIGKILL"), "signal 9 (SIGKILL), as a machine does that runs out of memory"),
        (KILLED_BY_ITSELF.format("SIGTERM"), "signal 15 (SIGTERM), before its first request. It said nothing"),
        (KILLED_BY_ITSELF.format("SIGSEGV"), "signal 11 (SIGSEGV)"),
        ("raise MemoryError('no room')", "exit code 1 before its first request. Its last words:\nTraceback"),
        ("raise MemoryError('no room')", "no room"),
        ("import nothing_of_this_name", "No module named 'nothing_of_this_name'"),
        ("import sys; sys.exit(3)", "exit code 3 before its first request. It said nothing"),
        ("import os; os._exit(2)", "exit code 2"),
        ("print('\\0garbage' * 9999)", "ended without a result"),
        ("import sys; sys.stderr.buffer.write(b'\\xff\\xfe' * 9999); sys.exit(1)", "exit code 1"),
    ],
    ids=["killed", "ended", "crashed", "raises", "raises why", "import", "code", "code 2", "garbage", "no text"],
)  # fmt: skip
def test_a_job_that_dies_says_how(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch, script: str, says: str
) -> None:
    child(monkeypatch, script)
    job = jobs.start(SMALL)
    assert wait(job) == "failed"
    assert says in job.message
    assert len(job.message) < module.LONGEST_MESSAGE + 200
    assert jobs.start(SMALL) is not job  # and may be tried again


def test_a_simulation_that_is_killed_says_how_far_it_was(jobs: Jobs) -> None:
    job = jobs.start(ENDLESS.replace("4000000", "100000"))
    for _ in range(6000):
        if job.progress[1] or job.state != "running":
            break
        time.sleep(0.05)
    os.killpg(job.process.pid, signal.SIGKILL)
    assert wait(job) == "failed"
    assert "SIGKILL" in job.message and "of 200," in job.message.replace("of 199,", "of 200,")


def test_a_job_that_cannot_be_started_says_so(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "COMMAND", ("/nowhere/python",))
    job = jobs.start(SMALL)
    assert job.state == "failed" and "could not be started" in job.message
    assert "/nowhere/python" in job.message


def test_a_job_that_is_slow_to_begin_is_no_failure(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a busy machine makes of a start; its result comes late, not never."""
    late = (
        "import pathlib, sys, time; time.sleep(1); out = pathlib.Path(sys.argv[-1]); out.mkdir(); "
        "(out / 'run.json').write_text('{}')"
    )
    child(monkeypatch, late)
    job = jobs.start(SMALL)
    assert job.state == "running" and job.progress == (0, 0)
    assert wait(job) == "done"


def test_a_job_that_does_not_heed_is_killed(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 0.2)
    deaf = (
        "import pathlib, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "pathlib.Path('deaf').touch(); time.sleep(600)"
    )
    child(monkeypatch, deaf)
    job = jobs.start(SMALL)
    while not (job.folder / "deaf").exists():
        time.sleep(0.02)
    job.cancel()
    assert job.state == "cancelled"


def test_servers_that_begin_at_once_do_not_clear_one_another_s_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another server's `_clear` comes between a folder's making and its lock."""
    cleared: list[str] = []
    make = tempfile.mkdtemp

    def made(**how: Any) -> str:
        name = make(**how)
        if len(cleared) < 3:
            module._clear(tmp_path)
            cleared.append(name)
        return name

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(tempfile, "mkdtemp", made)
    jobs = Jobs()
    try:
        assert len(cleared) == 3 and [*tmp_path.iterdir()] == [jobs.folder]
        module._clear(tmp_path)
        assert jobs.folder.is_dir(), "it is locked"
    finally:
        jobs.close()
    assert not [*tmp_path.iterdir()]
