"""YAML text -> a tree with positions: the plain part of YAML, read without surprises.

Built on PyYAML's events, because its loaders lose positions, let a duplicate key win silently, read `no` as false,
`12:30:00` as 45000 and `1e6` as text, and expand aliases without bound. Here a scalar is null, true, false, a decimal
number or text; anchors, aliases and tags are refused; and everything that is wrong is found at once.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple, Protocol

import yaml
from yaml import events

from sim.files import read_regular
from sim.scenario.errors import KeyPath, LocatedProblem, Place, ScenarioError, did_you_mean
from sim.scenario.tree import Node, Scalar

MAX_FILE_BYTES: Final = 256 * 1024
"""Far above any scenario, and small enough to parse in about a second."""
TOO_LARGE: Final = f"larger than {MAX_FILE_BYTES // 1024} KiB; a scenario is a small text file"
MOST_NAMES: Final = 2000
"""Of a folder's files that are compared with one that is missing: each takes some microseconds."""
MAX_DEPTH: Final = 24
"""Nested sections and lists at most; a scenario needs six."""

_INT: Final = re.compile(r"[-+]?(0|[1-9][0-9_]*)")
_FLOAT: Final = re.compile(r"[-+]?([0-9][0-9_]*\.[0-9]*|\.[0-9]+|[0-9][0-9_]*(?=[eE]))([eE][-+]?[0-9]+)?")
_CONSTANTS: Final[dict[str, Scalar]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


def scalar(text: str) -> Scalar:
    """What an unquoted scalar means: null, true, false, a decimal number, or the text itself."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    digits = text.replace("_", "")
    if _INT.fullmatch(text) and len(digits) < 100:  # longer ones are out of every range: infinity will say so
        return int(digits)
    if _INT.fullmatch(text) or _FLOAT.fullmatch(text):
        return float(digits)
    return text


def read_file(path: Path, name: str, piped: bool = False) -> str:
    """The text of a scenario file, which messages call `name`. `piped`: the user's own, which may come through a pipe.

    Raises ScenarioError if it is missing, a folder, too large, or not UTF-8 text.
    """

    def refuse(message: str, line: int | None = None, column: int | None = None) -> ScenarioError:
        return ScenarioError([LocatedProblem((), message, Place(name, line, column))])

    try:
        raw = _head(path) if piped else read_regular(path, MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise refuse(f"no such file{similar_file(path)}") from None
    except IsADirectoryError:
        raise refuse("this is a folder; expected a YAML file") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or str(error)
        raise refuse(f"cannot be read: {reason}") from None
    if len(raw) > MAX_FILE_BYTES:
        raise refuse(TOO_LARGE)
    if b"\0" in raw:
        raise refuse("a binary file; expected YAML text")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = raw[: error.start]
        line, column = before.count(b"\n") + 1, error.start - before.rfind(b"\n")
        raise refuse(f"not UTF-8 text: byte 0x{raw[error.start]:02x}", line, column) from None


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_FILE_BYTES + 1)


def exists(path: Path) -> bool:
    """Whether a file or folder of that name exists; false too for names that none can have."""
    try:
        return path.exists()
    except OSError:
        return False


def similar_file(path: Path) -> str:
    """`; did you mean 'x'?` for the file of that folder whose name is nearest."""
    try:
        return did_you_mean(path.name, [p.name for p in islice(path.parent.iterdir(), MOST_NAMES)])
    except OSError:
        return f" (there is no folder {path.parent})"


def read(text: str, name: str) -> Node:
    """The document in `text`, called `name` in messages; null where it is empty.

    Raises ScenarioError with everything that is wrong.
    """
    reader = _Reader(text, name)
    root = reader.document()
    if reader.problems:
        raise ScenarioError(reader.problems)
    return root


class _Mark(Protocol):
    """A place in the text, counted from 0, as PyYAML does."""

    @property
    def line(self) -> int: ...
    @property
    def column(self) -> int: ...


class _At(NamedTuple):
    line: int
    column: int


class _Reader:
    """One pass over the events of one text. Problems that leave the rest readable are collected."""

    def __init__(self, text: str, name: str) -> None:
        self.name = name
        self.text = text
        self.lines = re.split(r"\r\n|[\r\n\x85\u2028\u2029]", text)  # the line breaks that YAML counts
        self.problems: list[LocatedProblem] = []
        self.events = self._events()

    def place(self, mark: _Mark | None) -> Place:
        if mark is None:
            return Place(self.name)
        text = self.lines[mark.line] if mark.line < len(self.lines) else ""
        return Place(self.name, mark.line + 1, mark.column + 1, text)

    def complain(self, mark: _Mark | None, message: str, path: KeyPath = ()) -> None:
        self.problems.append(LocatedProblem(path, message, self.place(mark)))

    def fail(self, mark: _Mark | None, message: str) -> ScenarioError:
        """The problem after which reading cannot go on, with those found before."""
        self.complain(mark, message)
        return ScenarioError(self.problems)

    def _events(self) -> Iterator[events.Event]:
        """PyYAML's events; whatever it raises becomes a problem with a place."""
        if len(self.text) > MAX_FILE_BYTES:
            raise self.fail(None, TOO_LARGE)
        try:
            yield from yaml.parse(self.text, Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            mark, context = (
                error.problem_mark or error.context_mark,
                f" {error.context}" if error.context else "",
            )
            if mark and error.context_mark and error.context_mark.line < mark.line:
                context += f" that starts at line {error.context_mark.line + 1}"
            raise self.fail(mark, f"not valid YAML: {error.problem}{context}") from None
        except yaml.reader.ReaderError as error:
            *before, last = re.split(r"\r\n|[\r\n\x85\u2028\u2029]", self.text[: error.position])
            message = f"not text: character U+{ord(self.text[error.position]):04X} is not allowed"
            raise self.fail(_At(len(before), len(last)), message) from None
        except (
            ValueError,
            OverflowError,
        ):  # PyYAML hands some escapes and versions to chr() and int() unchecked
            raise self.fail(None, "not valid YAML: a number or an escape is out of range") from None

    def document(self) -> Node:
        """The only document of the text."""
        root: Node | None = None
        for event in self.events:
            if isinstance(event, events.DocumentStartEvent):
                if root is not None:
                    raise self.fail(event.start_mark, "a second document starts here; expected one per file")
                root = self.node(next(self.events), (), 0)
        return root or Node(None, Place(self.name))

    def node(self, event: events.Event, path: KeyPath, depth: int) -> Node:
        mark = event.start_mark
        if isinstance(event, events.AliasEvent) or getattr(event, "anchor", None):
            raise self.fail(mark, "YAML anchors and aliases (& and *) are not supported; use `extends`")
        if tag := getattr(event, "tag", None):
            raise self.fail(mark, f"YAML tags ({tag}) are not supported; quote the text if it is text")
        if depth > MAX_DEPTH:
            raise self.fail(mark, f"nested more than {MAX_DEPTH} levels deep")
        if isinstance(event, events.MappingStartEvent):
            return Node(self.mapping(path, depth), self.place(mark))
        if isinstance(event, events.SequenceStartEvent):
            items: list[Node] = []
            while not isinstance(item := next(self.events), events.SequenceEndEvent):
                items.append(self.node(item, (*path, len(items)), depth + 1))
            return Node(items, self.place(mark))
        assert isinstance(event, events.ScalarEvent)  # no other event starts a node
        if not event.value.isprintable():
            self.complain(mark, "text on several lines, or with characters that cannot be printed", path)
            return Node("", self.place(mark))
        return Node(scalar(event.value) if event.style is None else str(event.value), self.place(mark))

    def mapping(self, path: KeyPath, depth: int) -> dict[str, Node]:
        children: dict[str, Node] = {}
        while not isinstance(event := next(self.events), events.MappingEndEvent):
            key = self.node(event, path, depth + 1)
            name = event.value if isinstance(event, events.ScalarEvent) else ""
            child = self.node(next(self.events), (*path, name), depth + 1)
            if not name:
                self.complain(event.start_mark, "a key must be text", path)
            elif name in children:
                first = children[name].key
                message = f"duplicate key; first at line {first.line}" if first else "duplicate key"
                self.complain(event.start_mark, message, (*path, name))
            else:
                children[name] = replace(child, key=key.place)
        return children
