"""Any file that tells steps -> timed steps."""

import gzip
import sqlite3
import zlib
from pathlib import Path
from typing import Final

from calibrate.step.logs import read_log
from calibrate.step.timed import Beside, NoSteps, TimedStep
from calibrate.step.traces import GZIP, read_kineto, read_nsys
from sim.files import open_regular

SQLITE: Final = b"SQLite format 3\0"
JSON: Final = (b"{", b"[")
BROKEN: Final = (
    ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError, EOFError, sqlite3.Error,
    gzip.BadGzipFile, zlib.error,
)  # fmt: skip
"""What reading a file raises that is not of its kind."""


def read_steps(path: Path, beside: Beside) -> list[TimedStep]:
    """The steps of a log or a trace, whichever it is.

    Raises NoSteps with what was expected, and OSError where it cannot be read.
    """
    with open_regular(path) as file:
        head = file.read(len(SQLITE))
    try:
        if head.startswith(SQLITE):
            return read_nsys(path, beside)
        if head.startswith(GZIP) or (path.suffix == ".json" and head.lstrip()[:1] in JSON):
            return read_kineto(path, beside)
        return read_log(path, beside)
    except NoSteps:
        raise
    except BROKEN as error:
        raise NoSteps(
            f"{path}: expected a log of SGLang or vLLM, a trace of torch.profiler (.json, packed or not) or an SQLite "
            f"export of nsys ({error})"
        ) from error
