"""Reading files that others name: regular ones only, and not without end.

A scenario may come from anybody. A device or a pipe would be read for ever, and a file of many GB would fill
the memory.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

LARGEST_BYTES: Final = 2**30
"""Of a file that a scenario names, packed or not: twenty times the largest public trace, and it fits in memory."""
UNREAL: Final = ("/proc/", "/sys/")
"""Folders whose files look regular and are none."""


def read_regular(path: Path, most_bytes: int = LARGEST_BYTES) -> bytes:
    """The bytes of a regular file.

    Raises as `open_regular`, and OSError where it is larger than `most_bytes`.
    """
    with open_regular(path) as file:
        raw = file.read(most_bytes + 1)
    if len(raw) > most_bytes:
        raise _refused(path, f"larger than {_size(most_bytes)}")
    return raw


@contextmanager
def open_regular(path: Path) -> Iterator[BinaryIO]:
    """A regular file, to be read in pieces.

    Raises OSError with a reason for people: it does not exist, is a folder, a device or a pipe. ValueError where no
    file can have that name.
    """
    if os.path.realpath(path).startswith(UNREAL):
        raise _refused(path, "not a regular file")
    # Without O_NONBLOCK, to open a pipe that nobody writes to would wait for ever.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor, not a path
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            raise _refused(path, "not a regular file")
        yield file


def read_text(path: Path, most_bytes: int = LARGEST_BYTES) -> str:
    """The UTF-8 text of a regular file. Raises as `read_regular`, and ValueError where it is no such text."""
    return read_regular(path, most_bytes).decode("utf-8-sig")


def changed_ns(path: Path) -> int:
    """When a file was last changed, which tells one state of it from the next; 0 where nobody can say, as whoever
    reads it then finds out."""
    try:
        return path.stat().st_mtime_ns
    except (OSError, ValueError):  # no such file, or a name that none can have
        return 0


def _refused(path: Path, reason: str) -> OSError:
    return OSError(errno.EINVAL, reason, str(path))


def _size(count: int) -> str:
    """256 KiB, 8 MiB or 1 GiB."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20)):
        if count >= size:
            return f"{count // size} {unit}"
    return f"{count // 1024} KiB"
