"""Dates with a time of day, as people write them: the year first (ISO), or last, after day and month in either order.

`11/02/2026` is a day of November or of February. With dots the day is first. Otherwise a row of the file tells, where
one of the two is above 12; or all rows are of one day, whose time of day is all that counts. Else nothing is guessed.
"""

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Final

YEAR_LAST: Final = re.compile(r"(\d{1,2})([./-])(\d{1,2})\2(\d{4})(?!\d)[\sT,]*(.*)")
HALVES: Final = re.compile(r"(\d{1,2})(.*?)\s*([ap])\.?m\.?", re.IGNORECASE)
"""`10:00:05 PM`."""
MONTHS: Final = 12
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Undecided(ValueError):
    """Nothing tells the order of day and month."""


def like_a_date(cell: object) -> bool:
    """Whether to read a column that begins so as dates: a date, or text that begins like one."""
    return isinstance(cell, datetime) or (
        isinstance(cell, str) and (any(c in cell for c in "-/:T") or bool(YEAR_LAST.match(cell.strip())))
    )


def is_a_date(cell: object) -> bool:
    """Whether it is one, in any order of day and month."""
    for day_first in (True, False):
        try:
            microseconds(cell, day_first)
        except ValueError:
            continue
        return like_a_date(cell)
    return False


def day_first(cells: Iterable[object]) -> bool:
    """Whether these dates, where their year is last, begin with the day.

    Raises Undecided, which shows one, where nothing tells.
    """
    days, shown = set[tuple[int, int, str]](), ""
    for cell in cells:
        match = YEAR_LAST.match(cell.strip()) if isinstance(cell, str) else None
        if match is None:
            continue
        first, second = int(match[1]), int(match[3])
        if match[2] == "." or max(first, second) > MONTHS:
            return match[2] == "." or first > MONTHS
        days.add((first, second, match[4]))
        shown = match[0]
    if len(days) > 1:
        raise Undecided(shown)
    return True


def microseconds(cell: object, day_first: bool) -> float:
    """Of a date and time of day since 1970; UTC unless it says otherwise. Raises ValueError for anything else."""
    moment = cell
    try:
        if isinstance(cell, str):
            moment = datetime.fromisoformat(_iso(cell.strip(), day_first))
        if not isinstance(moment, datetime):
            raise ValueError
    except ValueError:
        last = isinstance(cell, str) and YEAR_LAST.match(cell.strip())
        order = (
            f", or with the {'day' if day_first else 'month'} first as elsewhere in the column"
            if last
            else ""
        )
        raise ValueError(
            f"expected a date and time such as 2023-11-16 18:15:46.68{order}, got {str(cell)[:40]!r}"
        ) from None
    try:
        return (moment.replace(tzinfo=moment.tzinfo or UTC) - _EPOCH) // timedelta(microseconds=1)
    except OverflowError:
        raise ValueError(f"expected a date and time of this age, got {str(cell)[:40]!r}") from None


def _iso(text: str, day_first: bool) -> str:
    """The same date with its year first."""
    match = YEAR_LAST.fullmatch(text)
    if match is None:
        return text.replace("/", "-")
    day, month = (match[1], match[3]) if day_first else (match[3], match[1])
    return f"{match[4]}-{month:0>2}-{day:0>2} {_clock(match[5])}".strip()


def _clock(text: str) -> str:
    """A time of day of 24 hours, with two digits each."""
    halves = HALVES.fullmatch(text)
    if halves:
        if not 1 <= int(halves[1]) <= MONTHS:
            raise ValueError
        afternoon = halves[3].lower() == "p"
        text = f"{int(halves[1]) % 12 + 12 * afternoon}{halves[2]}"
    return f"0{text}" if text[1:2] == ":" else text
