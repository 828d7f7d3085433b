"""Processes that measure end with their parent, even one that is killed, and in the middle of a kernel."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs torch: pip install 'tokenworks[calibrate]'")

SCRIPTS = {
    "worker": """
import time
from calibrate.worker import Worker

def measuring():
    return time.sleep

if __name__ == "__main__":
    worker = Worker(measuring)
    worker.start(100)
    print(worker._process.pid, flush=True)
    worker.ask(600, 600)
""",
    "group": """
import time
from calibrate.environment import Device
from calibrate.group import Group

if __name__ == "__main__":
    group = Group(2, Device("cpu", "a CPU", 2, 2**34, 2**20))
    print(*(process.pid for process in group._processes), flush=True)
    time.sleep(600)
""",
}
WITHIN_S = 5.0


def alive(pids: list[int]) -> bool:
    """Whether one of them runs and is no zombie."""
    for pid in pids:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            continue
        if state != "Z":
            return True
    return False


def end_with(parent: "subprocess.Popen[Any]", pids: list[int]) -> None:
    """Kill the parent: its children end within `WITHIN_S`."""
    parent.kill()
    parent.wait(10)
    until = time.monotonic() + WITHIN_S
    while alive(pids) and time.monotonic() < until:
        time.sleep(0.05)
    assert not alive(pids)


def settle(pids: list[int]) -> None:
    """Wait until they are past their imports, and compute no more."""
    before, until = -1, time.monotonic() + 60
    while time.monotonic() < until:
        ticks = sum(
            sum(map(int, Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]))
            for pid in pids
        )
        if ticks == before:
            return
        before = ticks
        time.sleep(1)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
@pytest.mark.parametrize("name", SCRIPTS)
def test_they_end_with_a_parent_that_is_killed(tmp_path: Path, name: str) -> None:
    (tmp_path / "parent.py").write_text(SCRIPTS[name])
    parent = subprocess.Popen(
        [sys.executable, str(tmp_path / "parent.py")], stdout=subprocess.PIPE, text=True
    )
    pids: list[int] = []
    try:
        assert parent.stdout
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert pids and alive(pids)
        settle(pids)
        end_with(parent, pids)
    finally:
        parent.kill()
        for pid in pids:
            subprocess.run(["kill", "-9", str(pid)], capture_output=True, check=False)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_the_server_ends_with_its_parent_while_it_still_imports(tmp_path: Path) -> None:
    """Its torch takes a minute to import; on a busy machine the real one takes many seconds."""
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("import time\ntime.sleep(60)\n")
    (tmp_path / "parent.py").write_text(SCRIPTS["worker"])
    parent = subprocess.Popen(
        [sys.executable, str(tmp_path / "parent.py")],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"},
    )
    children, until = Path(f"/proc/{parent.pid}/task/{parent.pid}/children"), time.monotonic() + 60
    pids: list[int] = []
    try:
        while len(pids) < 2 and time.monotonic() < until:  # the server, and what cleans up after it
            pids = [int(pid) for pid in children.read_text().split()]
            time.sleep(0.05)
        settle(pids)
        assert len(pids) == 2 and alive(pids[:1]) and alive(pids[1:])
        end_with(parent, pids)
    finally:
        parent.kill()
        for pid in pids:
            subprocess.run(["kill", "-9", str(pid)], capture_output=True, check=False)
