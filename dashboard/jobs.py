"""Simulations outside the page: each a child process that runs `tokenworks run`, polled and cancelled from here.

Jobs belong to the server, not to a page: a second window, or a reload, finds the same one.
"""

import atexit
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Final, Literal

State = Literal["running", "done", "failed", "cancelled"]

PROGRESS_VARIABLE: Final = "TOKENWORKS_PROGRESS"
KEPT: Final = 40
"""Finished jobs whose files stay; the oldest go first."""
LONGEST_MESSAGE: Final = 2000
"""Characters of what a failed run said."""


class Busy(RuntimeError):
    """As many simulations run as the machine has cores."""


@dataclass
class Job:
    """One run of one scenario."""

    folder: Path
    process: "subprocess.Popen[bytes]"
    started: float = field(default_factory=time.monotonic)
    cancelled: bool = False

    @property
    def state(self) -> State:
        """Where it stands."""
        code = self.process.poll()
        if code is None:
            return "running"
        if code == 0:
            return "done"
        return "cancelled" if self.cancelled else "failed"

    @property
    def progress(self) -> tuple[int, int]:
        """(requests done, of all); zeros before the first report."""
        try:
            done, total = (self.folder / "progress").read_text(encoding="utf-8").split()
        except (OSError, ValueError):
            return 0, 0
        return int(done), int(total)

    @property
    def result(self) -> Path:
        """The folder that `sim.result.load` reads, once it is done."""
        return self.folder / "out"

    @property
    def message(self) -> str:
        """What a failed run said."""
        said = (self.folder / "stderr").read_text(encoding="utf-8", errors="replace").strip()
        return said[-LONGEST_MESSAGE:] or f"the simulation ended with code {self.process.poll()}"

    def cancel(self) -> None:
        """End it, with everything that it started."""
        if self.process.poll() is None:
            self.cancelled = True
            os.killpg(self.process.pid, signal.SIGTERM)
            self.process.wait(timeout=10)


class Jobs:
    """The jobs of a server, by what they run."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="tokenworks-dashboard-"))
        self._jobs: dict[str, Job] = {}
        self._lock = Lock()
        atexit.register(self.close)

    def find(self, text: str, seed: int = 0) -> Job | None:
        """The job that runs or ran this scenario with this seed."""
        return self._jobs.get(_key(text, seed))

    def start(self, text: str, seed: int = 0) -> Job:
        """Run a scenario, unless it runs or has run already. Raises Busy."""
        with self._lock:
            job = self._jobs.get(_key(text, seed))
            if job and job.state in ("running", "done"):
                return job
            if sum(job.state == "running" for job in self._jobs.values()) >= (os.cpu_count() or 1):
                raise Busy("as many simulations run as this machine has cores; wait for one, or cancel it")
            self._forget()
            job = self._jobs[_key(text, seed)] = _started(self.folder, text, seed)
            return job

    def close(self) -> None:
        """Cancel what runs and remove all files."""
        for job in self._jobs.values():
            job.cancel()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _forget(self) -> None:
        ended = [key for key, job in self._jobs.items() if job.state != "running"]
        for key in ended[: max(0, len(ended) - KEPT)]:
            shutil.rmtree(self._jobs.pop(key).folder, ignore_errors=True)


def _key(text: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}\n{text}".encode()).hexdigest()


def _started(parent: Path, text: str, seed: int) -> Job:
    folder = Path(tempfile.mkdtemp(dir=parent))
    scenario = folder / "scenario.yaml"
    scenario.write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "sim.cli", "run", str(scenario), "--seed", str(seed), "--quiet"]
    with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as errors:
        process = subprocess.Popen(
            [*command, "--json", "--out", str(folder / "out")],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=errors,
            env={**os.environ, PROGRESS_VARIABLE: str(folder / "progress")},
            cwd=folder,
            start_new_session=True,
        )
    return Job(folder, process)
