"""The terminal: where text for people goes, and how numbers are written there."""

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

Tick = Callable[[int, int], None]

DID_NOT_HOLD: Final = 1
"""Exit code: a check or an invariant did not hold."""
BAD_INPUT: Final = 2
"""Exit code: the input is the user's to mend."""
PROGRESS_FILE = "TOKENWORKS_PROGRESS"
"""Environment variable that names a file for the progress of a run, `done total`, instead of a bar."""
PARENT_PIPE = "TOKENWORKS_PARENT_PIPE"
"""Environment variable of a command whose stdin is a pipe from the program that started it: it ends with that."""
WIDTH_OF_A_FILE = 160
"""Columns where the output is no terminal: wide enough that no number is cut."""


class Screen:
    """Where text for people goes: stdout, or stderr where `--json` needs stdout for itself.

    `quiet` leaves out progress and notes, and with `--json` the tables too.
    """

    def __init__(self, as_json: bool = False, quiet: bool = False) -> None:
        self.out = _console(stderr=as_json, quiet=as_json and quiet)
        self.notes = _console(stderr=True, quiet=quiet)

    def show(self, parts: Iterable[RenderableType]) -> None:
        """A result for people, part by part."""
        for part in parts:
            self.out.print(part, soft_wrap=not isinstance(part, Table))

    def note(self, message: str) -> None:
        """Something worth knowing that is no result: always on stderr."""
        self.notes.print(message, style="dim", soft_wrap=True)

    @contextmanager
    def progress(self, title: str) -> Iterator[Tick | None]:
        """A bar on stderr, moved by the function it gives (done, total); None where nobody watches.

        A program that starts the command watches through a file: see PROGRESS_FILE.
        """
        if file := os.environ.get(PROGRESS_FILE):
            yield lambda done, total: _note(Path(file), f"{done} {total}")
            return
        if self.notes.quiet or not self.notes.is_terminal:
            yield None
            return
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=self.notes, transient=True) as bar:
            task = bar.add_task(title, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)


def _note(file: Path, text: str) -> None:
    """Replace the file's content at once, so that a reader never finds half of it. No run is lost where that fails."""
    beside = file.with_name(f".{file.name}.new")
    with suppress(OSError):
        beside.write_text(text, encoding="utf-8")
        beside.replace(file)


def _console(stderr: bool, quiet: bool = False) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else WIDTH_OF_A_FILE
    return Console(file=stream, width=width, quiet=quiet, markup=False, highlight=False, emoji=False)


def show_error(message: str) -> None:
    """What is wrong, on stderr, as it is: no wrapping, so that carets stay under their columns."""
    _console(stderr=True).print(Text(message, style="red"), soft_wrap=True)


# --- numbers ---------------------------------------------------------------------------------------------------


def number(value: float | None) -> str:
    """Three significant digits, or all digits of a whole part; thousands separated. `-` where there is none."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if isinstance(value, int) or abs(value) >= 100 or value == 0 else f"{value:#.3g}"


def seconds(value: float | None) -> str:
    """A duration in the unit that reads best."""
    if value is None:
        return "-"
    for least, unit, scale in ((1.0, "s", 1.0), (1e-3, "ms", 1e3), (0.0, "us", 1e6)):
        if abs(value) >= least:
            return f"{number(value * scale)} {unit}"
    return "-"


def usd(value: float | None) -> str:
    """A price; three significant digits below 100 dollars."""
    if value is None:
        return "-"
    return f"${value:,.2f}" if abs(value) >= 10 else f"${value:#.3g}"


def percent(value: float | None) -> str:
    """A share."""
    return "-" if value is None else f"{100 * value:.1f}%"
