"""What is wrong with a scenario, and where it is written.

A check that knows only the scenario raises `DeploymentError` with `Problem`s, each naming a key path; whoever loaded the
scenario knows the files, and turns them into a `ScenarioError` that shows the line. Both take one positional argument, so
that SimPy, which re-raises with `type(error)(*error.args)`, can carry them out of a run.
"""

from collections.abc import Iterable
from dataclasses import dataclass

KeyPath = tuple[str | int, ...]


def dotted(path: KeyPath) -> str:
    """The key path as a user writes it: `deployment.decode.tp`."""
    return ".".join(str(part) for part in path)


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a scenario, in one sentence, at one key (the empty path is the whole scenario)."""

    path: KeyPath
    message: str

    def __str__(self) -> str:
        return f"{dotted(self.path)}: {self.message}" if self.path else self.message


class DeploymentError(ValueError):
    """The scenario's form is right, but its deployment is impossible: `problems` says why, all at once."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__(self.problems)

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)


@dataclass(frozen=True)
class Place:
    """A character of a text: line and column count from 1. `text` is the source line, for display."""

    file: str
    line: int
    column: int
    text: str = ""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True)
class LocatedProblem:
    """A problem with the place that causes it; `place` is None where there is no text to point at."""

    file: str
    path: KeyPath
    message: str
    place: Place | None = None

    @property
    def line(self) -> int | None:
        """Line of the source, from 1; None where there is no text to point at."""
        return self.place.line if self.place else None

    @property
    def column(self) -> int | None:
        """Column of the source, from 1; None where there is no text to point at."""
        return self.place.column if self.place else None

    def __str__(self) -> str:
        head = f"{self.place or self.file}: {Problem(self.path, self.message)}"
        if self.place is None or not self.place.text.strip():
            return head
        number = f"{self.place.line:>6} | "
        caret = " " * (len(number) - 2) + "| " + " " * (self.place.column - 1) + "^"
        return f"{head}\n{number}{self.place.text}\n{caret}"


class ScenarioError(ValueError):
    """A scenario cannot be used: every problem found, each with its file, line and column where there is one."""

    def __init__(self, problems: Iterable[LocatedProblem]) -> None:
        self.problems = tuple(problems)
        super().__init__(self.problems)

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)
