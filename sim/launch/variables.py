"""The variables of a shell text: what it assigns, and a text with them filled in."""

import ast
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from sim.launch.words import Word

VARIABLE: Final = re.compile(r"\$(?:(\w+|[@*])|\{(\w+)(?:\[\w+\])?(?:(:?[-+])([^}]*))?\})")
ARRAY: Final = re.compile(r"\$\{(\w+)\[[@*]\]\}")
"""All words of an array."""
_OPERATORS: Final[Mapping[type[ast.operator], Callable[[int, int], int]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.floordiv,
    ast.Mod: operator.mod,
}
_LONGEST_SUM: Final = 200
"""Characters of a sum that is worked out."""


class Variables:
    """What was assigned so far, by name."""

    def __init__(self) -> None:
        self._values: dict[str, Word] = {}
        self.exported: dict[str, Word] = {}

    def assign(self, word: Word, undecided: bool, exports: bool) -> None:
        """Keep what a word assigns; `undecided`: only a branch does, so that nobody knows it."""
        pair = word.assigns
        assert pair is not None
        name, text = pair
        before = self._values.get(name) if word.appends else None
        unknown = (*word.unknown, *((name,) if undecided else ()))
        value = Word(text, word.place, unknown, items=word.items)
        if before is not None:
            value = replace(
                value,
                text=before.text + text,
                unknown=(*before.unknown, *unknown),
                items=(*before.items, *word.items),
            )
        self._values[name] = value
        if exports:
            self.exported[name] = value

    def set_all(self, values: Mapping[str, Word]) -> None:
        """Take these values, as the environment of a shell gives them."""
        self._values |= values

    def array(self, name: str, shown: Word) -> tuple[Word, ...]:
        """The words of an array; one that nobody knows, `shown`, where there is none of that name."""
        value = self._values.get(name)
        if value is None:
            return (replace(shown, unknown=(name,)),)
        items = value.items or (Word(value.text, value.place),)
        return tuple(replace(item, unknown=(*item.unknown, *value.unknown)) for item in items)

    def filled(self, text: str) -> tuple[str, list[str]]:
        """The text with its variables filled in, and the names of those that nobody set."""
        missing: list[str] = []

        def value(found: "re.Match[str]") -> str:
            name, otherwise = found[1] or found[2], found[3] or ""
            known = self._values.get(name)
            if otherwise.startswith(":") and known and not (known.text or known.items or known.unknown):
                known = None
            if otherwise.endswith("+"):
                return found[4] if known is not None else ""
            if known is not None:
                missing.extend(known.unknown)
                return known.items[0].text if known.items else known.text
            if otherwise:
                return found[4]
            missing.append(name)
            return found[0]

        return VARIABLE.sub(value, text), missing

    def summed(self, text: str) -> str | None:
        """What `$((...))` comes to, given what stands between; None where that is not known, or no sum."""
        names = re.sub(r"(?<![\w${])([A-Za-z_]\w*)", r"$\1", text.strip())
        whole, missing = self.filled(names)
        if missing or len(whole) > _LONGEST_SUM:
            return None
        try:
            return str(_sum(ast.parse(whole, mode="eval").body))
        except (ArithmeticError, SyntaxError, ValueError):
            return None


def _sum(node: ast.expr) -> int:
    """Raises ValueError where it is no sum of whole numbers."""
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_sum(node.operand)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_sum(node.left), _sum(node.right))
    raise ValueError
