"""Numbers without any order in them, alike wherever the simulator draws by a number."""

from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

Numbers = TypeVar("Numbers", int, NDArray[np.uint64])

_BITS: Final = 2**64 - 1


def scattered(number: Numbers) -> Numbers:
    """From a number, or each of many, 64 bits without order (SplitMix64; Steele, Lea and Flood, OOPSLA 2014)."""
    bits: Any = (number + 1) * 0x9E3779B97F4A7C15 & _BITS
    bits = (bits ^ bits >> 30) * 0xBF58476D1CE4E5B9 & _BITS
    bits = (bits ^ bits >> 27) * 0x94D049BB133111EB & _BITS
    drawn: Numbers = bits ^ bits >> 31
    return drawn
