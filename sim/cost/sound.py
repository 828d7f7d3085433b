"""What measured rows and fits must be to price anything: anybody may have written a profile, or a tear have cut it."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sim.cost.bounds import AT_MOST, MOST_OF_AXIS, MOST_US, least_of, most_of
from sim.kernels import FAMILIES
from sim.kernels.family import Stage

Floats = NDArray[np.float64]

MOST_PER_S: Final = 1e20
"""FLOP or bytes per second of a fit: its unused rates are 1, and a real one is a thousandth of this."""
SHARPEST: Final = 1e3
LEAST_OF_FORM, MOST_OF_FORM = 0.01, 1e4
"""Of a measured time over what its table's fitted form says: those that ship lie within 0.29 and 206. Beyond, a row or
the fit is broken."""
METHODS: Final = ("linear", "fitted")


def check_columns(columns: Mapping[str, Floats]) -> None:
    """Raises ValueError, with column and row, where the columns of a family's file are no measured rows.

    An axis that a table does not have is NaN in all of its rows; times and numbers of tables are always there.
    """
    if not {"table", "us"} <= columns.keys():
        raise ValueError("expected columns table and us")
    table = columns["table"]
    for name in sorted(columns, key=lambda name: name != "table"):
        values, unit = columns[name], " microseconds" if name == "us" else ""
        absent = np.isnan(values)
        if name in ("table", "us"):
            absent[:] = False
        elif absent.any():
            absent &= ~np.isin(table, table[~absent])
        wrong = ~((values >= least_of(name)) & (values <= most_of(name)) | absent)
        if wrong.any():
            raise ValueError(
                f"column {name}, row {int(np.argmax(wrong)) + 1:,} of {len(values):,}, one of {int(wrong.sum()):,} "
                f"such: expected {least_of(name):g} to {most_of(name):g}{unit}, got {values[wrong][0]:g}"
            )
    for part, whole in AT_MOST.items():
        if {part, whole} <= columns.keys() and (wrong := columns[part] > columns[whole]).any():
            row = int(np.argmax(wrong))
            raise ValueError(
                f"column {part}, row {row + 1:,} of {len(wrong):,}, one of {int(wrong.sum()):,} such: expected at most "
                f"{whole}, {columns[whole][row]:g}, got {columns[part][row]:g}"
            )


def check_axes(kernel: str, axes: Collection[str], rows: int) -> None:
    """Raises ValueError where a table of a family lacks rows, or an axis that its work is counted by."""
    if not rows:
        raise ValueError("no rows of a table that the header lists")
    if lacking := FAMILIES[kernel].needs - set(axes):
        raise ValueError(f"a table lacks {', '.join(sorted(lacking))}")


def check_work(stages: Sequence[Stage], shape: Mapping[str, Floats], seconds: Floats) -> None:
    """Raises ValueError, with the row, where no kernel has the work of its shape: coordinates that cannot be together,
    such as more nodes than GPUs."""
    work = np.array([np.broadcast_to(amount, len(seconds)) for stage in stages for amount in stage])
    wrong = ~(np.isfinite(work) & (work >= 0)).all(axis=0)
    if wrong.any():
        least = work[:, np.argmax(wrong)].min()
        raise ValueError(f"{_row(wrong, shape)}: expected work of 0 FLOP and bytes or more, got {least:g}")


def check_form(form_seconds: Floats, shape: Mapping[str, Floats], seconds: Floats) -> None:
    """Raises ValueError, with the row, where a measured time is far from what its table's fit says."""
    wrong = ~((seconds >= LEAST_OF_FORM * form_seconds) & (seconds <= MOST_OF_FORM * form_seconds))
    if wrong.any():
        us, form_us = (1e6 * times[np.argmax(wrong)] for times in (seconds, form_seconds))
        raise ValueError(
            f"column us, {_row(wrong, shape)}: {us:g} microseconds, and {form_us:g} by the fit; expected "
            f"{LEAST_OF_FORM:g} to {MOST_OF_FORM:g} times that"
        )


def _row(wrong: NDArray[np.bool_], shape: Mapping[str, Floats]) -> str:
    """Which row of a table is the first that is wrong, and how many are."""
    row = int(np.argmax(wrong))
    at = ", ".join(f"{axis} {values[row]:g}" for axis, values in sorted(shape.items()))
    return f"row {row + 1:,} of {len(wrong):,} of the table ({at}), one of {int(wrong.sum()):,} such"


def check_fit(entry: Any) -> None:
    """Raises ValueError where the entry of a fit is none."""
    if not isinstance(entry, dict):
        raise ValueError("expected a section")
    numbers = {"launch_s": (0.0, MOST_US * 1e-6), "sharpness": (1.0, SHARPEST), "hiding": (1.0, SHARPEST)}
    for key, (least, most) in numbers.items():
        given = entry.get(key, 1.0 if key == "hiding" else None)
        if not _between(given, least, most):
            raise ValueError(f"{key}: expected a number from {least:g} to {most:g}, got {_short(given)}")
    if not isinstance(entry.get("by_tokens", False), bool):
        raise ValueError(f"by_tokens: expected true or false, got {_short(entry['by_tokens'])}")
    rates = [entry.get(key) for key in ("flop_per_s", "bytes_per_s")]
    if not all(isinstance(r, list) and all(_between(x, 1e-3, MOST_PER_S) for x in r) for r in rates):
        raise ValueError(f"flop_per_s, bytes_per_s: expected lists of numbers above 0 to {MOST_PER_S:g}")
    if len(rates[0] or ()) != len(rates[1] or ()):
        raise ValueError("flop_per_s, bytes_per_s: expected one of each per stage")
    if entry.get("method") not in METHODS:
        raise ValueError(f"method: expected {' or '.join(METHODS)}, got {_short(entry.get('method'))}")
    noise, held_out = entry.get("noise"), entry.get("held_out", {})
    if noise is not None and not _between(noise, 0.0, 1e3):
        raise ValueError(f"noise: expected a share of the time, got {_short(noise)}")
    if not isinstance(held_out, dict) or not all(isinstance(e, dict) for e in held_out.values()):
        raise ValueError("held_out: expected errors by axis")
    if not all(_between(x, 0.0, MOST_OF_AXIS) for errors in held_out.values() for x in errors.values()):
        raise ValueError("held_out: expected errors of 0 or more")
    if entry.get("prior") is not None:
        _check_prior(entry["prior"])


def _check_prior(prior: Any) -> None:
    """Raises ValueError where the prior of a fit is none."""
    words, numbers = ("profile", "table"), ("factor", "points")
    if not isinstance(prior, dict) or prior.keys() != {*words, *numbers, "spread"}:
        raise ValueError(f"prior: expected {', '.join((*words, *numbers))} and spread")
    spread = prior["spread"]
    told = [prior[key] for key in numbers] + (spread if isinstance(spread, list) else [])
    if len(told) != len(numbers) + 2 or not all(_between(x, 1e-9, MOST_OF_AXIS) for x in told):
        raise ValueError("prior: expected numbers above 0, and two of them in spread")
    if not all(isinstance(prior[key], str) for key in words):
        raise ValueError("prior: expected names in profile and table")


def _between(value: object, least: float, most: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most


def _short(value: object) -> str:
    return str(value)[:40]
