"""What is wrong with a scenario, and where it is written.

A check that knows only the scenario raises `DeploymentError` with `Problem`s, each naming a key path; whoever
loaded the scenario knows the files, and turns them into a `ScenarioError` that shows the line. Both take one
positional argument, so that SimPy, which re-raises with `type(error)(*error.args)`, can carry them out of a run.
"""

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

KeyPath = tuple[str | int, ...]

_LONG_WORD: Final = re.compile(r"\S{200,}")
_WORD_SHOWN, _LONGEST, _LINE_SHOWN = 60, 2000, 160
"""Characters of a long word, of a message, and of a source line that are shown."""
SCREEN_LINES: Final = 20
"""Lines that all problems of a scenario take together: beyond it they come without their source lines."""
MOST_TOLD: Final = 15
"""Mistakes of one scenario that are told; how many more there are is said."""


def dotted(path: KeyPath) -> str:
    """The key path as a user writes it: `deployment.decode.tp`."""
    return ".".join(str(part) for part in path)


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the nearest of `names`, empty where none is near."""
    # Two letters that change places make a short name half different.
    valid = list(names)
    for shown in dict.fromkeys((name[:_WORD_SHOWN], name[:_WORD_SHOWN].lower())):
        near = difflib.get_close_matches(shown, valid, n=1, cutoff=0.5 if len(name) <= 3 else 0.6)
        if near:
            return f"; did you mean '{near[0]}'?"
    return ""


def brief(message: str) -> str:
    """The message, with what it quotes at excessive length cut: a name of a thousand characters helps nobody."""
    message = _LONG_WORD.sub(lambda word: word[0][:_WORD_SHOWN] + "...", message)
    return message if len(message) <= _LONGEST else message[:_LONGEST] + "..."


def excerpt(text: str, column: int) -> tuple[str, int]:
    """What a message shows of a line around `column` (from 1), and the column of the same character in that."""
    start = max(0, min(column - 1 - _LINE_SHOWN // 2, len(text) - _LINE_SHOWN))
    shown = text[start : start + _LINE_SHOWN]
    before, after = "..." * (start > 0), "..." * (start + _LINE_SHOWN < len(text))
    return f"{before}{shown}{after}", column - start + len(before)


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a scenario: a sentence, and the key it concerns (empty: the whole)."""

    path: KeyPath
    message: str

    def __str__(self) -> str:
        message = brief(self.message)
        return f"{brief(dotted(self.path))}: {message}" if self.path else message


class DeploymentError(ValueError):
    """The scenario's form is right, but its deployment is impossible: `problems` says why, all at once."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__(self.problems)

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)


@dataclass(frozen=True)
class Place:
    """A character of a file: line and column count from 1, `text` is the source line.

    Without a line it is the file as a whole, or an override such as `--set gpu`.
    """

    file: str
    line: int | None = None
    column: int | None = None
    text: str = ""

    def __str__(self) -> str:
        return self.file if self.line is None else f"{self.file}:{self.line}:{self.column}"

    def excerpt(self) -> str:
        """The source line with a caret under the column; empty where there is no line to show."""
        if self.line is None or self.column is None or not self.text.strip():
            return ""
        shown, column = excerpt(self.text, self.column)
        # Tabs stay tabs under the line, so that the caret stands below its character.
        indent = "".join("\t" if c == "\t" else " " for c in shown[: column - 1])
        text = "".join(c if c.isprintable() or c == "\t" else "\N{REPLACEMENT CHARACTER}" for c in shown)
        return f"{self.line:>6} | {text}\n{'':>6} | {indent}^"


@dataclass(frozen=True)
class LocatedProblem:
    """A problem with the place that causes it."""

    path: KeyPath
    message: str
    place: Place

    @property
    def file(self) -> str:
        """The file to mend, as the user named it."""
        return self.place.file

    @property
    def line(self) -> int | None:
        """Its line, from 1; None where no text can be pointed at."""
        return self.place.line

    @property
    def column(self) -> int | None:
        """Its column, from 1; None where no text can be pointed at."""
        return self.place.column

    def json(self) -> dict[str, str | int | None]:
        """What `check --json` lists."""
        return {
            "file": self.file,
            "line": self.line,
            "column": self.column,
            "key": brief(dotted(self.path)),
            "message": brief(self.message),
        }

    def sentence(self) -> str:
        """Place, key and message on one line."""
        name, message = brief(dotted(self.path)), brief(self.message)
        said = not name or self.place.file.endswith(f" {name}")  # `--set gpu` names its key already
        return f"{self.place}: {message}" if said else f"{self.place}: {name}: {message}"

    def __str__(self) -> str:
        return "\n".join(filter(None, (self.sentence(), self.place.excerpt())))


def and_more(count: int, file: str) -> LocatedProblem:
    """The last of many problems: how many more there are."""
    return LocatedProblem((), f"and {count:,} more such mistakes", Place(file))


class ScenarioError(ValueError):
    """A scenario cannot be used. `problems` holds everything found, each with its file, line and column."""

    def __init__(self, problems: Iterable[LocatedProblem]) -> None:
        every = tuple(problems)
        more = len(every) - MOST_TOLD - 1  # one more takes no more room than to say so
        if more > 0:
            every = (*every[:MOST_TOLD], and_more(len(every) - MOST_TOLD, every[0].place.file))
        self.problems = every
        super().__init__(self.problems)

    def __str__(self) -> str:
        """All problems, each with its source line as long as they are few: a screen shows the whole."""
        shown = max(1, (SCREEN_LINES - len(self.problems)) // 2)
        return "\n".join(str(p) if i < shown else p.sentence() for i, p in enumerate(self.problems))
