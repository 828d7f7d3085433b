"""Results that are whole, folders and files: whoever looks finds the old one or the new one, at whatever moment.

A result is written to a hidden folder beside its place, and takes the place at once. What a killed process left of
such a folder is cleared by the next one that writes there; a lock tells those that are still written to.
"""

import ctypes
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import Final

try:
    import fcntl
except ImportError:  # Windows: nothing is told apart, so nothing is cleared
    fcntl = None  # type: ignore[assignment]

AT_FDCWD, RENAME_EXCHANGE = -100, 2
"""Of renameat2(2), Linux 3.15."""
PREFIX: Final = ".tokenworks-"
TRIES: Final = 20
"""Folders made in vain before a file system is taken to have no locks."""


@contextmanager
def whole_folder(target: Path, last: str, ours: Collection[str] = ()) -> Iterator[Path]:
    """A folder to write to, which takes the place of `target` where the block ends without an exception.

    Where `target` holds other files than the new ones and those of the patterns `ours`, or is the working folder, it
    stays, and the new files are moved into it one by one, `last` as the last: who finds that finds all. What an earlier
    result left there of the names `ours` goes after that; of patterns nothing, since they may fit files of others.
    """
    target = Path(os.path.realpath(target))
    target.parent.mkdir(parents=True, exist_ok=True)
    place = target.parent if _takes(target) else target
    with _hidden(place) as made:
        yield made
        _put(made, target, last, ours, beside=place != target)


@contextmanager
def whole_file(target: Path) -> Iterator[Path]:
    """A file to write to, which takes the place of `target` where the block ends without an exception."""
    target = Path(os.path.realpath(target))
    target.parent.mkdir(parents=True, exist_ok=True)
    with _hidden(target.parent) as made:
        yield made / target.name
        (made / target.name).replace(target)


def write_whole(target: Path, text: str) -> None:
    """Replace a text file at once."""
    with whole_file(target) as file:
        file.write_text(text, encoding="utf-8")


@contextmanager
def _hidden(place: Path) -> Iterator[Path]:
    """A folder to write to in `place`, ours until the block ends."""
    clear(place)
    made, lock = _made(place)
    try:
        yield made
    finally:
        if lock is not None:
            os.close(lock)
        shutil.rmtree(made, ignore_errors=True)


def _made(place: Path) -> tuple[Path, int | None]:
    """A new folder and its lock. Until it is locked, another process may take it for left and clear it: then another
    one is made. Without locks nobody clears."""
    for _ in range(TRIES if fcntl is not None else 0):
        made = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
        lock = _locked(made)
        if lock is not None:
            return made, lock
        shutil.rmtree(made, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=PREFIX, dir=place)), None


def clear(folder: Path) -> None:
    """Remove what processes that are gone have left half-written in a folder."""
    for left in folder.glob(f"{PREFIX}*"):
        lock = _locked(left)
        if lock is not None:
            shutil.rmtree(left, ignore_errors=True)
            os.close(lock)


def _takes(target: Path) -> bool:
    """Whether a folder beside `target` can be renamed to it: not where it is mounted, nor where one may not write."""
    if not target.exists():
        return True
    return os.access(target.parent, os.W_OK) and target.stat().st_dev == target.parent.stat().st_dev


def _locked(folder: Path) -> int | None:
    """The descriptor that holds the folder's lock until its process ends; None where another one has it, or the folder
    is gone."""
    if fcntl is None:
        return None
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


def _put(made: Path, target: Path, last: str, ours: Collection[str], beside: bool) -> None:
    names = {file.name for file in made.iterdir()}
    there = {file.name for file in target.iterdir()} if target.is_dir() else set()
    patterns = (*ours, f"{PREFIX}*")
    known = all(name in names or any(fnmatch(name, pattern) for pattern in patterns) for name in there)
    if beside and known and target not in (Path.cwd(), *Path.cwd().parents):
        made.chmod(target.stat().st_mode if target.is_dir() else 0o777 & ~_umask())
        if not there:
            with suppress(OSError):  # a file came in between
                made.rename(target)
                return
        if _exchanged(made, target):
            return
    target.mkdir(exist_ok=True)
    for name in sorted(names, key=lambda name: (name == last, name)):
        new, old = made / name, target / name
        if not (
            new.is_dir() and old.is_dir() and _exchanged(new, old)
        ):  # a folder only replaces an empty one
            new.replace(old)
    if last in there:  # else it is not an earlier result that they are of
        for name in (there - names) & {*ours}:
            if (target / name).is_file():
                (target / name).unlink()


def _exchanged(one: Path, other: Path) -> bool:
    """Let two folders change places in one step; false where the system cannot."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    done: int = rename(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE)
    return done == 0


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
