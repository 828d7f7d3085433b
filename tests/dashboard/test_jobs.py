"""Simulations in child processes: they run, tell their progress, end, fail with a sentence, and can be cancelled."""

import time
from collections.abc import Iterator

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
ENDLESS = SMALL.replace("duration_s: 60", "duration_s: 10000000")


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
