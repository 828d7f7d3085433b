"""Kill -9 at random moments: what is left is the old result or the new one, and no process of it lives on."""

import os
import random
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from killed_commands import NEW, OLD, Killed, Told

from sim.saving import PREFIX

WITHIN_S: Final = 5.0
"""After which no child is left."""
MARK: Final = "TOKENWORKS_KILLED"
"""Variable of the environment that children inherit, whatever else they leave."""
LONGEST_S: Final = 300.0
INTO_WRITING_S: Final = 0.05
"""After the first byte of a result is seen; less where a command has been seen to end sooner."""


@dataclass(frozen=True)
class Outcome:
    """Of one kill."""

    after_s: float
    while_writing: bool
    left: str
    """old, new, between (of a command that appends), or what is wrong."""
    ended: bool = False
    """The command had ended before."""


class Scene:
    """The old and the new result of a command, and a folder in which it is killed."""

    def __init__(self, command: Killed, folder: Path, inputs: Path) -> None:
        self.command, self.folder, self.inputs = command, folder, inputs
        self.out = folder / "at" / "out"
        self.kept: dict[str, Path] = {}
        self.takes_s, self.writes_s = 0.0, INTO_WRITING_S
        for which in (OLD, NEW):
            if which == OLD or not command.grows:
                self._cleared()
            self.takes_s = self._whole(which)
            self.kept[which] = shutil.copytree(self.out, folder / which)
        self.left: Told = {}
        self.told = {which: command.told(place) for which, place in self.kept.items()}
        if self.told[OLD] == self.told[NEW]:
            raise ValueError(f"{command.name}: the old result is the new one")

    def kill(self, rng: random.Random) -> Outcome:
        """Begin the new result over the old one and kill it; every other time just after it begins to write."""
        self._cleared()
        shutil.copytree(self.kept[OLD], self.out)
        writing, mark = rng.random() < 0.5, uuid.uuid4().hex
        share, bytes_before = rng.random(), self._bytes_at(rng.random())
        began = time.monotonic()
        process = self._begun(NEW, mark)
        while writing and process.poll() is None and not self._half_written(bytes_before):
            time.sleep(0.002)
        seen = time.monotonic()
        until = seen + share * (self.writes_s if writing else self.takes_s)
        while process.poll() is None and time.monotonic() < until:
            time.sleep(0.001)
        ended, now = process.poll() is not None, time.monotonic()
        process.kill()
        process.wait()
        if ended:  # on a machine that is less busy than before
            self.takes_s = min(self.takes_s, now - began)
            self.writes_s = min(self.writes_s, now - seen) if writing else self.writes_s
        return Outcome(now - began, writing, self._judged(mark), ended)

    def again(self) -> str:
        """Whatever the last kill left, the same command ends with the new result and clears."""
        self._whole(NEW)
        if left := [*self.out.parent.glob(f"{PREFIX}*"), *self.out.glob(f"{PREFIX}*")]:
            return f"not cleared: {left[0].name}"
        told = self.command.told(self.out)
        if self.command.grows:
            return "" if _begins(told, self.left) else "what was there is gone"
        return "" if told == self.told[NEW] else "another result"

    def _judged(self, mark: str) -> str:
        until = time.monotonic() + WITHIN_S
        while (alive := [*_marked(mark)]) and time.monotonic() < until:
            time.sleep(0.02)
        if alive:
            return f"{len(alive)} children live on"
        self.left = {}
        try:
            self.left = self.command.told(self.out)
        except (ValueError, OSError) as error:
            return f"broken: {error}"
        return self._named(self.left)

    def _named(self, told: Told) -> str:
        for which, known in self.told.items():
            if told == known:
                return which
        old, new = self.told[OLD], self.told[NEW]
        if self.command.grows and _begins(told, old):
            return "between"
        other = [
            name for name in sorted({*told, *new}) if told.get(name) not in (old.get(name), new.get(name))
        ]
        return f"neither the old result nor the new one ({', '.join(other) or 'some of each'})"

    def _bytes_at(self, share: float) -> float:
        """Bytes of the file that a command appends to when it has added this share of what it adds."""
        if not (name := self.command.grows):
            return 0.0
        old, new = ((self.kept[which] / name).stat().st_size for which in (OLD, NEW))
        return old + share * (new - old)

    def _half_written(self, bytes_before: float) -> bool:
        try:
            if name := self.command.grows:
                return (self.out / name).stat().st_size > bytes_before
            return any(self.out.parent.glob(f"{PREFIX}*/*")) or any(self.out.glob(f"{PREFIX}*/*"))
        except FileNotFoundError:  # one of them has just gone
            return False

    def _cleared(self) -> None:
        shutil.rmtree(self.out.parent, ignore_errors=True)
        self.out.parent.mkdir(parents=True)

    def _begun(self, which: str, mark: str = "") -> "subprocess.Popen[str]":
        arguments = [sys.executable, "-m", "sim.cli", *self.command.asked(which, self.inputs, self.out)]
        return subprocess.Popen(
            arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE if not mark else subprocess.DEVNULL, text=True,
            env={**os.environ, MARK: mark},
        )  # fmt: skip

    def _whole(self, which: str) -> float:
        """Seconds that the command takes to its end."""
        began = time.monotonic()
        process = self._begun(which)
        _, errors = process.communicate(timeout=LONGEST_S)
        if process.returncode not in (0, 1):  # 1: something did not hold, such as a published figure
            raise RuntimeError(f"{self.command.name} ended with {process.returncode}: {errors[-2000:]}")
        return time.monotonic() - began


def _begins(told: Told, with_: Told) -> bool:
    """Whether every file begins with what another result holds of it."""
    return all(told.get(name, b"").startswith(begun) for name, begun in with_.items())


def _marked(mark: str) -> Iterator[int]:
    """Processes whose environment has the mark."""
    wanted = f"{MARK}={mark}".encode()
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            if wanted in environ.read_bytes().split(b"\0"):
                yield int(environ.parent.name)
        except OSError:
            continue
