"""Simulations and plans outside the page: each a child process that runs `tokenworks`, polled and cancelled from here.

Jobs belong to the server, not to a page: a second window, or a reload, finds the same one.
"""

import atexit
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Final, Literal

State = Literal["waiting", "running", "done", "failed", "cancelled"]
Command = Literal["run", "plan"]

PROGRESS_VARIABLE: Final = "TOKENWORKS_PROGRESS"
PARENT_VARIABLE: Final = "TOKENWORKS_PARENT_PIPE"
PREFIX: Final = "tokenworks-dashboard-"
"""Of a server's folder of files."""
SCENARIO: Final = "scenario.yaml"
MOST_UNDER_WAY: Final = 24
"""Simulations that wait or run at most."""
KEPT: Final = 40
"""Finished jobs whose files stay; the oldest go first."""
LONGEST_MESSAGE: Final = 2000
"""Characters of what a failed run said, the last ones."""
PATIENCE_S: Final = 10
"""Seconds for a cancelled run to end by itself."""
COMMAND: Final = (sys.executable, "-m", "sim.cli")
BAD_INPUT: Final = 2
"""Exit code of `tokenworks` where the input is the user's to mend: what it said is the whole message."""
DONE: Final[Mapping[Command, str]] = {"run": "run.json", "plan": "plan.json"}
"""The file that a finished command leaves."""
TRIES: Final = 20
"""Folders made in vain before the file system of temporary files is taken to have no locks."""
UNKEPT: Final = 1
"""Exit code of a plan that only has the closest answer."""


class Busy(RuntimeError):
    """More simulations wait than anyone will wait for."""


@dataclass
class Job:
    """One run of one scenario."""

    folder: Path
    command: Command = "run"
    process: "subprocess.Popen[bytes] | None" = None
    """None while it waits for its turn."""
    cancelled: bool = False
    broken: str = ""
    """Why it cannot be begun, or its result cannot be read."""

    @property
    def state(self) -> State:
        """Where it stands."""
        if self.broken:
            return "failed"
        if self.process is None:
            return "cancelled" if self.cancelled else "waiting"
        code = self.process.poll()
        if code is None:
            return "running"
        answered = code == 0 or (code == UNKEPT and self.command == "plan")
        if answered and (self.result / DONE[self.command]).is_file():
            return "done"
        return "cancelled" if self.cancelled else "failed"

    @property
    def under_way(self) -> bool:
        """Whether it waits or runs."""
        return self.state in ("waiting", "running")

    @property
    def progress(self) -> tuple[int, int]:
        """(requests done, of all); zeros before the first report."""
        try:
            done, total = map(int, (self.folder / "progress").read_text(encoding="utf-8").split())
        except (OSError, ValueError):
            return 0, 0
        return min(done, total), total

    @property
    def result(self) -> Path:
        """The folder that `sim.result.load` reads, once it is done."""
        return self.folder / "out"

    @property
    def message(self) -> str:
        """How a failed run ended, and what it said last."""
        said = self._said()
        code = None if self.process is None else self.process.returncode
        if self.broken or code is None:
            return self.broken
        if code == BAD_INPUT and said:
            return said
        done, total = self.progress
        after = f" after {done:,} of {total:,} requests" if total else " before its first request"
        return f"The simulation {_ending(code)}{after}. " + (
            f"Its last words:\n{said}" if said else "It said nothing."
        )

    def _said(self) -> str:
        try:
            said = (self.folder / "stderr").read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            return ""
        return said[-LONGEST_MESSAGE:]

    def begin(self, seed: int) -> None:
        """Run it. What keeps it from running makes it a failed one."""
        command = [*COMMAND, self.command, str(self.folder / SCENARIO), "--seed", str(seed)]
        try:
            with (self.folder / "stdout").open("wb") as out, (self.folder / "stderr").open("wb") as errors:
                self.process = subprocess.Popen(
                    [*command, "--quiet", "--json", "--out", str(self.result)],
                    stdin=subprocess.PIPE,  # closed when this server ends, however it does: the child ends then, too
                    stdout=out,
                    stderr=errors,
                    # A crash of the interpreter itself, too, leaves a trace in stderr.
                    env={
                        **os.environ,
                        PROGRESS_VARIABLE: str(self.folder / "progress"),
                        PARENT_VARIABLE: "1",
                        "PYTHONFAULTHANDLER": "1",
                    },
                    cwd=self.folder,
                    start_new_session=True,
                )
        except OSError as error:
            self.broken = f"The simulation could not be started: {error}"

    def cancel(self) -> None:
        """End it, with everything that it started."""
        if not self.under_way:
            return
        self.cancelled = True
        if self.process is not None:
            for sign in (signal.SIGTERM, signal.SIGKILL):
                with suppress(ProcessLookupError):  # it has just ended by itself
                    os.killpg(self.process.pid, sign)
                with suppress(subprocess.TimeoutExpired):
                    self.process.wait(PATIENCE_S)
                    return


def _ending(code: int) -> str:
    """An exit code in words; below zero it is the signal that ended the process."""
    if code >= 0:
        return "ended without a result" if code == 0 else f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = "unknown"
    killed = ", as a machine does that runs out of memory" if -code == signal.SIGKILL else ""
    return f"was ended by signal {-code} ({name}){killed},"


class Jobs:
    """The jobs of a server, by what they run. As many run at once as the machine has cores; the others wait."""

    def __init__(self) -> None:
        _clear(Path(tempfile.gettempdir()))
        self.folder, self._lock_file = _made()
        self._jobs: dict[tuple[str, int], Job] = {}
        self._lock = Lock()
        atexit.register(self.close)

    def find(self, text: str, seed: int = 0) -> Job | None:
        """The job that waits, runs or ran this scenario with this seed. Whoever asks keeps the queue moving."""
        with self._lock:
            self._advance()
            return self._jobs.get((text, seed))

    def start(self, text: str, seed: int = 0, command: Command = "run") -> Job:
        """Run a scenario or a plan as soon as there is room, unless it waits, runs or has run already. Raises Busy."""
        with self._lock:
            job = self._jobs.get((text, seed))
            if job and (job.under_way or job.state == "done"):
                return job
            if sum(job.under_way for job in self._jobs.values()) >= MOST_UNDER_WAY:
                raise Busy(f"{MOST_UNDER_WAY} simulations are under way; wait for some, or cancel them")
            self._forget()
            job = Job(Path(tempfile.mkdtemp(dir=self.folder)), command)
            (job.folder / SCENARIO).write_text(text, encoding="utf-8")
            self._jobs.pop((text, seed), None)
            self._jobs[text, seed] = job
            self._advance()
            return job

    def close(self) -> None:
        """Cancel what is under way and remove all files."""
        for job in self._jobs.values():
            job.cancel()
        shutil.rmtree(self.folder, ignore_errors=True)
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None

    def _advance(self) -> None:
        """Begin those that wait, first come first served, while there are cores."""
        running = sum(job.state == "running" for job in self._jobs.values())
        for (_, seed), job in self._jobs.items():
            if job.state == "waiting" and running < (os.cpu_count() or 1):
                job.begin(seed)
                running += 1

    def _forget(self) -> None:
        ended = [key for key, job in self._jobs.items() if not job.under_way]
        for key in ended[: max(0, len(ended) - KEPT)]:
            shutil.rmtree(self._jobs.pop(key).folder, ignore_errors=True)


def _made() -> tuple[Path, int | None]:
    """A server's new folder and its lock. Until it is locked, another server may take it for left and clear it: then
    another one is made. Without locks nobody clears."""
    for _ in range(TRIES):
        made = Path(tempfile.mkdtemp(prefix=PREFIX))
        lock = _locked(made)
        if lock is not None:
            return made, lock
        shutil.rmtree(made, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=PREFIX)), None


def _locked(folder: Path) -> int | None:
    """The descriptor that holds a folder's lock until its server ends; None where another server has it, or the folder
    is gone."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return None
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(
            os.fstat(descriptor), folder.stat()
        ):  # who had the lock before may have cleared it
            return descriptor
    os.close(descriptor)
    return None


def _clear(folder: Path) -> None:
    """Remove the files of servers that were killed, and so could not do it themselves."""
    for left in folder.glob(f"{PREFIX}*"):
        lock = _locked(left) if _ours(left) else None
        if lock is not None:
            shutil.rmtree(left, ignore_errors=True)
            os.close(lock)


def _ours(folder: Path) -> bool:
    """Whether it is a folder of this user, and still there."""
    with suppress(OSError):  # another server has just cleared it
        return folder.is_dir() and folder.stat().st_uid == os.getuid()
    return False
