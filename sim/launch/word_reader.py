"""The words of a shell text: quotes, escapes, variables, arrays, and JSON, which may stand without quotes around it, as
it arrives when the shell has already taken them."""

import re
from dataclasses import dataclass, field
from typing import Final

from sim.launch.variables import ARRAY, VARIABLE, Variables
from sim.launch.words import ASSIGNMENT, Word, fail
from sim.scenario.errors import Place

_JSON_START: Final = re.compile(r"\{\s*[\"}]|\[(?:[\"{\]]|-?\d)")
_NOTHING_MORE: Final = re.compile(r"[ \t]*(\n|$|-)")
LONGEST: Final = 131_072
"""Characters of a word, or of all words of an array: what Linux takes as one argument (MAX_ARG_STRLEN, execve(2)).
Variables that hold each other twice would make as many as there is memory for."""


@dataclass
class Growing:
    """The words that are being read: those that are whole, and the pieces of the last."""

    place: Place
    pieces: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    quoted: bool = False
    done: list[Word] = field(default_factory=list)
    length: int = 0
    """Of all of them, with one more for each word."""

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    @property
    def last(self) -> str:
        """The last character of the word, if it has any: without putting a long one together."""
        return next((piece[-1] for piece in reversed(self.pieces) if piece), "")

    def add(self, text: str, unknown: tuple[str, ...] | list[str] = (), quoted: bool = False) -> None:
        """Raises ScenarioError where it becomes too long."""
        self.length = bounded(self.length + len(text), self.place)
        self.pieces.append(text)
        self.unknown.extend(name for name in dict.fromkeys(unknown) if name not in self.unknown)
        self.quoted = self.quoted or quoted

    def add_split(self, text: str, unknown: list[str]) -> None:
        """What a variable without quotes holds: its blanks end words, but where a word assigns."""
        if ASSIGNMENT.match(self.text) and not self.done:
            self.add(text, unknown)
            return
        for at, piece in enumerate(re.split(r"\s+", text)):
            if at:
                self.end()
            if piece:
                self.add(piece, unknown)

    def end(self) -> None:
        """The last word is whole; nothing at all makes none."""
        if self.pieces:
            self.length = bounded(self.length + 1, self.place)
            self.done.append(Word(self.text, self.place, tuple(self.unknown), self.quoted))
            self.pieces, self.unknown, self.quoted = [], [], False


def bounded(length: int, place: Place) -> int:
    """The length of words that are being read. Raises ScenarioError beyond `LONGEST`."""
    if length > LONGEST:
        raise fail(place, f"with its variables filled in this is longer than {LONGEST:,} characters")
    return length


class WordReader:
    """Where a reader stands in a text, and the words there."""

    def __init__(self, text: str, name: str) -> None:
        self.text = text.replace("\r\n", "\n")
        self.name = name
        self.lines = self.text.split("\n")
        self.at = 0
        self.variables = Variables()
        self.notes: list[str] = []

    def place(self, at: int) -> Place:
        line = self.text.count("\n", 0, at)
        return Place(self.name, line + 1, at - self.text.rfind("\n", 0, at), self.lines[line])

    def comment(self) -> None:
        end = self.text.find("\n", self.at)
        end = len(self.text) if end < 0 else end
        self.notes.append(self.text[self.at : end])
        self.at = end

    def words(self) -> list[Word]:
        """The words at the place where the reader stands: one, but where a variable without quotes, or an array,
        holds several or none."""
        start = self.at
        found = Growing(self.place(start))
        while self.at < len(self.text):
            char = self.text[self.at]
            if char == "(" and not found.done and ASSIGNMENT.fullmatch(found.text):
                return [Word(found.text, found.place, items=tuple(self.array()))]
            if char in " \t\n;|&()<>":
                break
            if char == "\\":
                self.escape(found, start)
            elif char == "'":
                found.add(self.until_quote("'"), quoted=True)
            elif char == '"':
                self.double_quoted(found)
            elif char == "`" or self.text.startswith("$(", self.at):
                self.output_of(found)
            elif every := ARRAY.match(self.text, self.at):
                self.every(found, every)
            elif char == "$":
                self.variable(found, splits=True)
            elif self.starts_json(found):
                found.add(*self.json())
            else:
                found.add(char)
                self.at += 1
        if self.at == start:
            raise fail(self.place(start), "expected a word here")
        found.end()
        return found.done

    def array(self) -> list[Word]:
        """The words between the brackets of `NAME=(...)`."""
        start, items, length = self.at, list[Word](), 0
        self.at += 1
        while self.at < len(self.text):
            char = self.text[self.at]
            if char == ")":
                self.at += 1
                return items
            if char in " \t\n" or self.text.startswith("\\\n", self.at):
                self.at += 1 + (char == "\\")
            elif char == "#":
                self.comment()
            else:
                more = self.words()
                length = bounded(length + sum(len(word.text) + 1 for word in more), self.place(start))
                items += more
        raise fail(self.place(start), "the bracket ( that opens here is never closed")

    def every(self, found: Growing, array: "re.Match[str]") -> None:
        """`${NAME[@]}`: the array's words, each a word of its own."""
        shown = Word(array[0], found.place)
        for word in self.variables.array(array[1], shown):
            found.end()
            found.add(word.text, word.unknown, word.quoted)
        self.at = array.end()

    def escape(self, found: Growing, start: int) -> None:
        following = self.text[self.at + 1 : self.at + 2]
        if following in (" ", "\t") and _NOTHING_MORE.match(self.text, self.at + 1):
            raise fail(
                self.place(self.at), "a blank after the backslash ends the command here; end the line with it"
            )
        if following != "\n":
            found.add(following)
        elif self.at == start:
            raise fail(self.place(self.at), "expected a word here")
        self.at += 2

    def until_quote(self, quote: str) -> str:
        """What stands between two single quotes."""
        end = self.text.find(quote, self.at + 1)
        if end < 0:
            raise fail(self.place(self.at), f"the quote {quote} that opens here is never closed")
        inside, self.at = self.text[self.at + 1 : end], end + 1
        return inside

    def double_quoted(self, found: Growing) -> None:
        opened = self.at
        self.at += 1
        if (every := ARRAY.match(self.text, self.at)) and self.text.startswith('"', every.end()):
            self.every(found, every)
            self.at += 1
            return
        found.add("", quoted=True)
        while self.at < len(self.text):
            char = self.text[self.at]
            if char == '"':
                self.at += 1
                return
            if char == "\\" and self.text[self.at + 1 : self.at + 2] in ('"', "\\", "$", "`", "\n"):
                found.add(self.text[self.at + 1].replace("\n", ""))
                self.at += 2
            elif char == "`" or self.text.startswith("$(", self.at):
                self.output_of(found)
            elif char == "$":
                self.variable(found, splits=False)
            else:
                found.add(char)
                self.at += 1
        raise fail(self.place(opened), 'the quote " that opens here is never closed')

    def output_of(self, found: Growing) -> None:
        """`$(...)` or backticks: what another command would print, which nobody knows here, unless it is a sum."""
        start, depth = self.at, 0
        while self.at < len(self.text):
            char = self.text[self.at]
            self.at += 1
            depth += (char == "(") - (char == ")")
            if self.at > start + 1 and depth == 0 and char in ")`":
                text = self.text[start : self.at]
                sums = text.startswith("$((") and text.endswith("))")
                summed = self.variables.summed(text[3:-2]) if sums else None
                found.add(*((text, [text.removeprefix("$")]) if summed is None else (summed, [])))
                return
        raise fail(self.place(start), "the command that opens here is never closed")

    def variable(self, found: Growing, splits: bool) -> None:
        """What a variable holds; without quotes around it (`splits`) its blanks end words."""
        name = VARIABLE.match(self.text, self.at)
        if name is None:
            found.add("$")
            self.at += 1
            return
        (found.add_split if splits else found.add)(*self.variables.filled(name[0]))
        self.at = name.end()

    def starts_json(self, found: Growing) -> bool:
        """Whether a JSON value starts here: at the start of a word, or after its `=`."""
        return (not found.pieces or found.last == "=") and bool(_JSON_START.match(self.text, self.at))

    def json(self) -> tuple[str, list[str]]:
        """A JSON value up to the bracket that closes it, its quotes kept, and the variables in it that nobody set."""
        start, depth, inside = self.at, 0, False
        while self.at < len(self.text):
            char = self.text[self.at]
            self.at += 2 if char == "\\" else 1
            if char == '"':
                inside = not inside
            elif not inside and char in "{[":
                depth += 1
            elif not inside and char in "}]":
                depth -= 1
                if depth == 0:
                    text, missing = self.variables.filled(self.text[start : self.at])
                    return text.replace("\\\n", ""), missing
        raise fail(self.place(start), f"the bracket {self.text[start]} that opens here is never closed")
