"""Shell text -> statements of words that know where they stand: quotes, comments, continuations, variables, files.

Only what people paste is read: what another command would print is not known, nor what a branch or a loop assigns, and
their commands are read as if every line ran once. JSON may stand without quotes around it, as it arrives when the
shell has already taken them.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from sim.scenario.errors import LocatedProblem, Place, ScenarioError

ASSIGNMENT: Final = re.compile(r"([A-Za-z_]\w*)=")
OPENS: Final = ("if", "case", "for", "while", "until")
CLOSES: Final = ("fi", "esac", "done")
"""Words between which a line may run or not; what is assigned there is not known."""
_VARIABLE: Final = re.compile(r"\$(?:(\w+)|\{(\w+)(?::?-([^}]*))?\})")
_HEREDOC: Final = re.compile(r"<<-?\s*(['\"]?)(\w+)\1")
_JSON_START: Final = re.compile(r"\{\s*[\"}]|\[(?:[\"{\]]|-?\d)")


@dataclass(frozen=True, slots=True)
class Word:
    """One word of a command, quotes taken off and variables filled in."""

    text: str
    place: Place
    unknown: tuple[str, ...] = ()
    """Variables that nobody set, or only a branch, and outputs of other commands."""
    quoted: bool = False

    @property
    def assigns(self) -> tuple[str, str] | None:
        """Name and value where the word is an assignment."""
        found = ASSIGNMENT.match(self.text)
        return (found[1], self.text[found.end() :]) if found else None


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


def read_script(text: str, name: str) -> Script:
    """The commands in `text`, called `name` in messages. Raises ScenarioError where the shell would not read it."""
    return _Reader(text, name).script()


class _Reader:
    """One pass over the characters."""

    def __init__(self, text: str, name: str) -> None:
        self.text = text.replace("\r\n", "\n")
        self.name = name
        self.lines = self.text.split("\n")
        self.at = 0
        self.variables: dict[str, Word] = {}
        self.exported: dict[str, Word] = {}
        self.files: dict[str, str] = {}
        self.notes: list[str] = []
        self.branches = 0
        self.statements: list[Statement] = []

    def place(self, at: int) -> Place:
        line = self.text.count("\n", 0, at)
        return Place(self.name, line + 1, at - self.text.rfind("\n", 0, at), self.lines[line])

    def script(self) -> Script:
        while self.at < len(self.text):
            self.statement()
        return Script(tuple(self.statements), self.files)

    def statement(self) -> None:
        """Words up to the end of the command; redirections are dropped, here-documents kept as files."""
        words: list[Word] = []
        start, target, heredoc, appends = self.at, "", None, False
        while self.at < len(self.text):
            char, rest = self.text[self.at], self.text[self.at :]
            if rest.startswith("\\\n"):
                self.at += 2
            elif char in " \t":
                self.at += 1
            elif char == "#":
                end = self.text.find("\n", self.at)
                end = len(self.text) if end < 0 else end
                self.notes.append(self.text[self.at : end])
                self.at = end
            elif char in "\n;|" or (char == "&" and not rest.startswith("&>")):
                self.at += len(re.match(r"[\n;]|\|\|?|&&?", rest)[0])  # type: ignore[index]
                break
            elif found := _HEREDOC.match(rest):
                heredoc, self.at = found, self.at + found.end()
            elif found := re.match(r"\d?&?>>?(&\d)?|<", rest):
                self.at += found.end()
                if found[1] is None:
                    self.skip_blanks()
                    target, appends = self.word().text, ">>" in found[0]
            elif char in "()":
                self.at += 1
            else:
                words.append(self.word())
        if heredoc is not None:
            tee = next((word.text for word in words[1:] if not word.text.startswith("-")), "")
            self.heredoc(heredoc, target or tee, appends, start)
        elif words:
            self.take(words)

    def skip_blanks(self) -> None:
        while self.text[self.at : self.at + 1] in (" ", "\t") and self.at < len(self.text):
            self.at += 1

    def heredoc(self, found: "re.Match[str]", target: str, appends: bool, start: int) -> None:
        """The lines down to the one that ends the document, variables filled in unless its name is quoted."""
        quote, end = found[1], found[2]
        body: list[str] = []
        while self.at < len(self.text):
            newline = self.text.find("\n", self.at)
            newline = len(self.text) if newline < 0 else newline
            line = self.text[self.at : newline]
            self.at = newline + 1
            if line.strip() == end:
                text = "\n".join(body) if quote else self.filled("\n".join(body))[0]
                self.files[target] = self.files.get(target, "") * appends + text + "\n"
                return
            body.append(line)
        raise fail(self.place(start), f"the document that starts here has no line `{end}` to end it")

    def take(self, words: list[Word]) -> None:
        """Keep a command; set the variables that it only assigns."""
        exports = words[0].text == "export"
        assigned = [word.assigns for word in words[exports:]]
        if all(assigned):
            for word, pair in zip(words[exports:], assigned, strict=True):
                assert pair is not None
                undecided = (pair[0],) if self.branches else ()
                value = Word(pair[1], word.place, (*word.unknown, *undecided))
                self.variables[pair[0]] = value
                if exports:
                    self.exported[pair[0]] = value
            return
        self.branches += (words[0].text in OPENS) - (words[0].text in CLOSES)
        self.statements.append(Statement(tuple(words), "\n".join(self.notes), dict(self.exported)))
        self.notes = []

    def word(self) -> Word:
        """The word at the place where the reader stands."""
        start = self.at
        parts: list[str] = []
        unknown: list[str] = []
        quoted = False
        while self.at < len(self.text):
            char = self.text[self.at]
            if char in " \t\n;|&()<>":
                break
            if char == "\\":
                self.escape(parts, start)
            elif char == "'":
                parts.append(self.until_quote("'"))
                quoted = True
            elif char == '"':
                self.double_quoted(parts, unknown)
                quoted = True
            elif char == "`" or self.text.startswith("$(", self.at):
                self.output_of(parts, unknown)
            elif char == "$":
                self.variable(parts, unknown)
            elif self.starts_json(parts):
                parts.append(self.json(unknown))
            else:
                parts.append(char)
                self.at += 1
        if self.at == start:
            raise fail(self.place(start), "expected a word here")
        return Word("".join(parts), self.place(start), tuple(unknown), quoted)

    def escape(self, parts: list[str], start: int) -> None:
        following = self.text[self.at + 1 : self.at + 2]
        if following in (" ", "\t") and re.match(r"[ \t]*(\n|$|-)", self.text[self.at + 1 :]):
            raise fail(
                self.place(self.at), "a blank after the backslash ends the command here; end the line with it"
            )
        if following != "\n":
            parts.append(following)
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

    def double_quoted(self, parts: list[str], unknown: list[str]) -> None:
        opened = self.at
        self.at += 1
        while self.at < len(self.text):
            char = self.text[self.at]
            if char == '"':
                self.at += 1
                return
            if char == "\\" and self.text[self.at + 1 : self.at + 2] in ('"', "\\", "$", "`", "\n"):
                parts.append(self.text[self.at + 1].replace("\n", ""))
                self.at += 2
            elif char == "`" or self.text.startswith("$(", self.at):
                self.output_of(parts, unknown)
            elif char == "$":
                self.variable(parts, unknown)
            else:
                parts.append(char)
                self.at += 1
        raise fail(self.place(opened), 'the quote " that opens here is never closed')

    def output_of(self, parts: list[str], unknown: list[str]) -> None:
        """`$(...)` or backticks: what another command would print, which nobody knows here."""
        start, depth = self.at, 0
        while self.at < len(self.text):
            char = self.text[self.at]
            self.at += 1
            depth += (char == "(") - (char == ")")
            if self.at > start + 1 and depth == 0 and char in ")`":
                text = self.text[start : self.at]
                parts.append(text)
                unknown.append(text.removeprefix("$"))
                return
        raise fail(self.place(start), "the command that opens here is never closed")

    def variable(self, parts: list[str], unknown: list[str]) -> None:
        found = _VARIABLE.match(self.text, self.at)
        if found is None:
            parts.append("$")
            self.at += 1
            return
        text, missing = self.filled(found[0])
        parts.append(text)
        unknown.extend(missing)
        self.at = found.end()

    def filled(self, text: str) -> tuple[str, list[str]]:
        """The text with its variables filled in, and the names of those that nobody set."""
        missing: list[str] = []

        def value(found: "re.Match[str]") -> str:
            name = found[1] or found[2]
            if name in self.variables:
                missing.extend(self.variables[name].unknown)
                return self.variables[name].text
            if found[3] is not None:
                return found[3]
            missing.append(name)
            return found[0]

        return _VARIABLE.sub(value, text), missing

    def starts_json(self, parts: list[str]) -> bool:
        """Whether a JSON value starts here: at the start of a word, or after its `=`."""
        return (not parts or parts[-1][-1:] == "=") and bool(_JSON_START.match(self.text, self.at))

    def json(self, unknown: list[str]) -> str:
        """A JSON value up to the bracket that closes it, its quotes kept."""
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
                    text, missing = self.filled(self.text[start : self.at])
                    unknown.extend(missing)
                    return text.replace("\\\n", "")
        raise fail(self.place(start), f"the bracket {self.text[start]} that opens here is never closed")
