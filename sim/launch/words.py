"""The words of a shell text, which know where they stand, and the statements that they make."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from sim.scenario.errors import LocatedProblem, Place, ScenarioError

ASSIGNMENT: Final = re.compile(r"([A-Za-z_]\w*)(\+?)=")
OPENS: Final = ("if", "case", "for", "while", "until")
CLOSES: Final = ("fi", "esac", "done")
"""Words between which a line may run or not; what is assigned there is not known."""


@dataclass(frozen=True, slots=True)
class Word:
    """One word of a command, quotes taken off and variables filled in."""

    text: str
    place: Place
    unknown: tuple[str, ...] = ()
    """Variables that nobody set, or only a branch, and outputs of other commands."""
    quoted: bool = False
    items: tuple["Word", ...] = ()
    """The words of an array, where this assigns one."""

    @property
    def assigns(self) -> tuple[str, str] | None:
        """Name and value where the word is an assignment."""
        found = ASSIGNMENT.match(self.text)
        return (found[1], self.text[found.end() :]) if found else None

    @property
    def appends(self) -> bool:
        """Whether it assigns to what was there (`NAME+=`)."""
        found = ASSIGNMENT.match(self.text)
        return bool(found and found[2])


@dataclass(frozen=True, slots=True)
class Statement:
    """One command as the shell would start it."""

    words: tuple[Word, ...]
    note: str = ""
    """The comments right above it."""
    environment: Mapping[str, Word] = field(default_factory=dict)
    """What was exported before it."""


@dataclass(frozen=True, slots=True)
class Script:
    """The commands of a text, and the files that it writes from within (`cat > FILE <<EOF`)."""

    statements: tuple[Statement, ...]
    files: Mapping[str, str]


def fail(place: Place, message: str) -> ScenarioError:
    """The error for one thing that is wrong at one place."""
    return ScenarioError([LocatedProblem((), message, place)])
