"""The values of a result file by key: what they must be, and which one is wrong."""

from collections.abc import Mapping
from math import inf
from typing import Any

from sim.validation.bench.run import BenchError
from sim.validation.cells import LEAST, MOST


class Values:
    """An object of a result file. Every reader raises BenchError, which names file and key."""

    def __init__(self, place: str, data: Mapping[str, Any]) -> None:
        self.place, self.data = place, data

    def __contains__(self, key: str) -> bool:
        return self.data.get(key) is not None

    def at(self, path: str) -> Any:
        """What stands at a dotted path; None where it, or anything on the way, is missing. A list is looked through for
        the entry of that `name`."""
        value: Any = self.data
        for key in path.split("."):
            if isinstance(value, list):
                named = (one for one in value if isinstance(one, dict) and one.get("name") == key)
                value = next(named, None)
            else:
                value = value.get(key) if isinstance(value, dict) else None
        return value

    def positive(self, key: str) -> float:
        """A number above zero, and no number out of this world."""
        number = self._number(key)
        if number is None or not LEAST <= number <= MOST:
            raise self.wrong(key, "a number above 0")
        return number

    def count(self, key: str) -> int:
        """A whole number above zero."""
        number = self.positive(key)
        if number != int(number):
            raise self.wrong(key, "a whole number")
        return int(number)

    def rate(self, key: str) -> float:
        """A rate above zero, or infinity: "inf", Infinity or nothing."""
        if self.data.get(key) is None:
            return inf
        number = self._number(key)
        if number is None or not (LEAST <= number <= MOST or number == inf):
            raise self.wrong(key, 'a number above 0 or "inf"')
        return number

    def tokens(self, key: str) -> list[int]:
        """A list of token counts; empty where there is none."""
        found = self.data.get(key) or []
        if not isinstance(found, list) or any(type(one) is not int or not 0 <= one <= MOST for one in found):
            raise self.wrong(key, "a list of token counts")
        return found

    def wrong(self, key: str, expected: str) -> BenchError:
        """The error for a value."""
        got = repr(self.data.get(key))
        return BenchError(f"{self.place}: {key}: expected {expected}, got {got[:40]}")

    def _number(self, key: str) -> float | None:
        value = self.data.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            return None
        try:
            return float(value)
        except (ValueError, OverflowError):
            return None
