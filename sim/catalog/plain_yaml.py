"""The part of YAML that the catalog of models is written in, for machines without PyYAML.

Mappings by indentation, and on one line scalars, {flow mappings} and [flow lists]; comments; strings plain or in double
quotes without escapes. `tests/catalog` holds it against PyYAML.
"""

import re
from collections.abc import Iterator
from typing import Any, Final

_LINE: Final = re.compile(r"^( *)([^\s:#][^:]*):(?: +(.*?))? *$")
_COMMENT: Final = re.compile(r"(?:^|\s)#.*$")
_TOKEN: Final = re.compile(r'\s*("[^"]*"|[{}\[\],]|:(?=\s|$)|(?:[^{}\[\],:"]|:(?!\s|$))+)')
_INTEGER: Final = re.compile(r"[-+]?[0-9]+")
_FLOAT: Final = re.compile(r"[-+]?[0-9]+\.[0-9]*(?:[eE][-+][0-9]+)?")
_WORDS: Final = {"true": True, "false": False, "null": None, "~": None, "": None}


def parse(text: str) -> Any:
    """The content of a document. Raises ValueError, with the line's number, for what lies outside of that part."""
    root: dict[str, Any] = {}
    open_at: list[tuple[int, dict[str, Any]]] = [(0, root)]
    last: tuple[dict[str, Any], str] | None = None
    for number, written in enumerate(text.splitlines(), start=1):
        line = written if '"' in written else _COMMENT.sub("", written)
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if (found := _LINE.match(line)) is None:
            raise ValueError(f"line {number}: expected `key: value`, not {line.strip()!r}")
        indent, key, value = len(found[1]), found[2].strip(), found[3]
        if indent > open_at[-1][0] and last is not None:
            parent, name = last
            parent[name] = {}
            open_at.append((indent, parent[name]))
        while indent < open_at[-1][0]:
            open_at.pop()
        mapping = open_at[-1][1]
        mapping[key] = _flow(iter(_TOKEN.findall(value)), number) if value else None
        last = (mapping, key)
    return root


def _flow(tokens: Iterator[str], line: int, first: str | None = None) -> Any:
    """The value that the tokens begin with."""
    token = next(tokens) if first is None else first
    if token == "{":
        return dict(_entries(tokens, line))
    if token == "[":
        return [_flow(tokens, line, first) for first in _until(tokens, "]")]
    if token in "}],:":
        raise ValueError(f"line {line}: expected a value, not {token!r}")
    return token[1:-1] if token.startswith('"') else _scalar(token.strip())


def _entries(tokens: Iterator[str], line: int) -> Iterator[tuple[str, Any]]:
    for key in _until(tokens, "}"):
        if next(tokens) != ":":
            raise ValueError(f"line {line}: expected `:` after {key!r}")
        yield key.strip(), _flow(tokens, line)


def _until(tokens: Iterator[str], end: str) -> Iterator[str]:
    """Tokens that begin an entry, up to the end of the list or mapping."""
    for token in tokens:
        if token == end:
            return
        if token != ",":
            yield token


def _scalar(text: str) -> Any:
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text
