"""Children end with their parent, however it ends, and its files with it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

POOL = """
import signal, sys, time
from sim.parallel import completed

signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whatever started the tests may ignore it

def work(seconds):
    print("began", flush=True)
    time.sleep(seconds)

if __name__ == "__main__":
    list(completed(work, [600] * 4, 2, work))
"""
JOB = """
import sys, time
from dashboard.jobs import Jobs
jobs = Jobs()
job = jobs.start(open(sys.argv[1]).read())
print(job.process.pid, jobs.folder, flush=True)
time.sleep(600)
"""
ENDLESS = """
model: deepseek-v3.2
gpu: h200_sxm
profile: analytic
deployment: {serve: {gpus: 8, ep: 8}}
workload: {arrivals: {poisson: {rate_per_s: 2}}, lengths: {input: {constant: 1000}, output: {constant: 50}}}
duration_s: 4000000
"""
WITHIN_S = 5.0


def children(pid: int) -> set[int]:
    """All descendants."""
    parents: dict[int, int] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if fields[0] != "Z":
            parents[int(status.parent.name)] = int(fields[1])
    found, new = set[int](), {pid}
    while new:
        new = {child for child, parent in parents.items() if parent in new} - found
        found |= new
    return found


def alive(pids: set[int]) -> set[int]:
    there = set()
    for pid in pids:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            continue
        if state != "Z":
            there.add(pid)
    return there


def end(pids: set[int]) -> None:
    for pid in alive(pids):
        os.kill(pid, signal.SIGKILL)


def gone(pids: set[int]) -> bool:
    until = time.monotonic() + WITHIN_S
    while alive(pids) and time.monotonic() < until:
        time.sleep(0.05)
    return not alive(pids)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGKILL, signal.SIGHUP])
def test_workers_end_with_their_parent(tmp_path: Path, sign: signal.Signals) -> None:
    (tmp_path / "pool.py").write_text(POOL)
    parent = subprocess.Popen([sys.executable, str(tmp_path / "pool.py")], stdout=subprocess.PIPE, text=True)
    found = set[int]()
    try:
        assert parent.stdout
        assert [parent.stdout.readline() for _ in range(2)] == ["began\n"] * 2  # both workers
        found = children(parent.pid)
        assert len(found) >= 3  # they, and what watches over shared memory
        parent.send_signal(sign)
        parent.wait(60)
        assert gone(found)
    finally:
        end({parent.pid, *found})


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_a_job_ends_with_its_server_and_the_next_server_clears_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    (tmp_path / "server.py").write_text(JOB)
    (tmp_path / "s.yaml").write_text(ENDLESS)
    command = [sys.executable, str(tmp_path / "server.py"), str(tmp_path / "s.yaml")]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    jobs = set[int]()
    try:
        assert server.stdout
        pid, folder = server.stdout.readline().split()
        jobs = {int(pid)}
        while not list(Path(folder).glob("*/progress")):  # until it simulates
            assert alive(jobs) == jobs
            time.sleep(0.05)
        assert alive(jobs) == jobs and Path(folder).is_dir()
        server.kill()
        server.wait(60)
        assert gone(jobs)
        again = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert again.stdout
            pid, new = again.stdout.readline().split()
            jobs.add(int(pid))
            assert not Path(folder).exists() and Path(new).is_dir()
        finally:
            again.kill()
            again.wait(60)
        assert gone(jobs)
    finally:
        end({server.pid, *jobs})
