"""What users can mend."""

from collections.abc import Callable
from functools import wraps
from typing import Final, ParamSpec, TypeVar

import pandas as pd

P = ParamSpec("P")
T = TypeVar("T")

LONGEST: Final = 1500
"""Characters of a message that a page shows."""


class BadInput(ValueError):
    """Something that the user can mend; its text is for the page."""


def said(call: Callable[P, T]) -> Callable[P, T]:
    """What is wrong with a scenario or a file, as BadInput. Every error of `sim` about input is one of these kinds."""

    @wraps(call)
    def saying(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return call(*args, **kwargs)
        except (KeyError, IndexError):
            raise  # a defect of ours
        except (LookupError, ValueError, OSError) as error:
            raise BadInput(str(error)[:LONGEST]) from error
        except ArithmeticError as error:  # numbers so large, or so near to none, that formulas end
            raise BadInput(f"these numbers are beyond what can be computed ({error})") from error

    return saying


def harmless(table: pd.DataFrame) -> pd.DataFrame:
    """The table without what a chart would take for a tag in the texts of a user."""
    texts = table.select_dtypes(exclude="number").columns
    return table.assign(
        **{name: table[name].replace({"<": "\u2039", ">": "\u203a"}, regex=True) for name in texts}
    )
