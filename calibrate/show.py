"""What a fit is worth: held-out error by family as a table, measured against predicted as plots."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from math import sqrt
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table as RichTable

from calibrate.fit import neighbour_steps
from sim.cost.fits import Fit
from sim.cost.priced_table import PricedTable
from sim.cost.profile import Profile, Table
from sim.kernels import FAMILIES

TABLE_WIDTH = 152
"""Columns of a printed table: more than 80, since the names of tables are long and must not be cut."""


def wide_console(stderr: bool) -> Console:
    """A console that is at least as wide as the tables."""
    console = Console(stderr=stderr)
    console.width = max(console.width, TABLE_WIDTH)
    return console


def family_errors(fits: Iterable[tuple[str, Fit]]) -> dict[str, dict[str, float]]:
    """Kernel family -> held-out median and p90, averaged over its tables and axes by the shapes left out.

    fits: (key of the table, its fit).
    """
    weights: dict[str, list[float]] = defaultdict(list)
    errors: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for key, fit in fits:
        family = key.split("/")[0]
        for held_out in fit.held_out.values():
            weights[family].append(held_out["shapes"])
            for name in ("median", "p90"):
                errors[family][name].append(held_out[name])
    return {
        family: {name: float(np.average(values, weights=weights[family])) for name, values in found.items()}
        for family, found in errors.items()
    }


def overview(profiles: Iterable[Profile]) -> dict[str, dict[str, dict[str, float]]]:
    """GPU -> kernel family -> held-out error over all engines of that GPU."""
    fits: dict[str, list[tuple[str, Fit]]] = defaultdict(list)
    for profile in profiles:
        fits[profile.gpu] += profile.fits.items()
    return {gpu: family_errors(found) for gpu, found in fits.items()}


def overview_table(errors: Mapping[str, Mapping[str, Mapping[str, float]]], of: str = "") -> RichTable:
    """One row per kernel family, one column per GPU. `of`: the model whose own kernels they are."""
    title = f"{f'{of}: ' if of else ''}error on whole axis values left out, all engines: median / p90"
    table = RichTable("family", *errors, title=title, box=None)
    for family in sorted({family for found in errors.values() for family in found}):
        cells = [
            f"{found[family]['median']:.1%} / {found[family]['p90']:.1%}" if family in found else ""
            for found in errors.values()
        ]
        table.add_row(family, *cells)
    return table


FALLS_AT: Final = 0.99
"""Quantile of the falls between neighbouring shapes that is shown as a table's own contradiction."""


def falls(table: Table) -> float:
    """Share by which more work was measured as faster: 99 in 100 neighbours along the innermost axis that the table
    varies fall by less. Kernels rarely get faster with more work, so this is mostly noise that no repeat shows."""
    axes = FAMILIES[table.kernel].axes
    *outer, inner = [a for a in axes if np.ptp(table.shape[a])] or axes[-1:]
    order = np.lexsort((table.shape[inner], *(table.shape[axis] for axis in outer)))
    same = np.all([np.diff(table.shape[axis][order]) == 0 for axis in outer], axis=0) if outer else True
    steps = np.diff(table.seconds[order]) / table.seconds[order][:-1]
    found = -steps[np.broadcast_to(same, len(steps))]
    return max(0.0, float(np.quantile(found, FALLS_AT))) if len(found) else 0.0


def noise_floor(table: Table) -> tuple[float, ...]:
    """What a perfect prediction would miss the rows by: median and p90; the median alone where repeats of a shape were
    merged into one row, nothing where no two rows tell it.

    Two rows that are off by s each differ by |a - b|, sqrt 2 times what one of them is off by; a half-spread is half of
    that difference.
    """
    if table.noise is not None:
        return (sqrt(2) * table.noise,)
    apart = neighbour_steps(table) / sqrt(2)
    return (float(np.median(apart)), float(np.quantile(apart, 0.9))) if len(apart) else ()


def error_table(profile: Profile, fits: Mapping[str, Fit]) -> RichTable:
    """One row per table and axis: how it is priced, what it reached, and the error on left-out axis values; beside
    them the table's `noise_floor` and its `falls`."""
    tables = {table.key: table for kernel in profile.kernels for table in profile.tables(kernel)}
    table = RichTable(title=f"{profile.name}: error on whole axis values left out", box=None, pad_edge=False)
    columns = (
        "table",
        "method",
        "launch us",
        "TFLOP/s",
        "GB/s",
        "axis",
        "median",
        "p90",
        "floor",
        "falls",
    )
    for column in columns:
        table.add_column(column, no_wrap=True, justify="left" if column in ("table", "axis") else "right")
    for key, fit in sorted(fits.items()):
        form = fit.form
        method = f"{fit.method} by tokens" if fit.by_tokens else fit.method
        method = method if fit.prior is None else "prior"
        head = [
            key, method, f"{form.launch_s * 1e6:.1f}", _rates(form.flop_per_s, 1e12), _rates(form.bytes_per_s, 1e9),
        ]  # fmt: skip
        # The noise of one's own points is that of the samples of each, whose median is steadier by far.
        floor = noise_floor(tables[key]) if not profile.calibrated else ()
        noise = [" / ".join(f"{part:.1%}" for part in floor), f"{falls(tables[key]):.1%}"]
        for axis, errors in fit.held_out.items():
            table.add_row(*head, axis, f"{errors['median']:.1%}", f"{errors['p90']:.1%}", *noise)
            head, noise = [""] * len(head), [""] * len(noise)
        if not fit.held_out:
            table.add_row(*head, "too few shapes", "", "", *noise)
    return table


def _rates(values: tuple[float, ...], unit: float) -> str:
    """Rates of the stages; a stage without work of that kind has rate 1 and is shown as a dash."""
    return " ".join(f"{value / unit:,.0f}" if value > 1 else "-" for value in values)


def predicted(table: Table, profile: Profile) -> NDArray[np.float64]:
    """Seconds that the fitted form alone gives on the measured shapes, without the interpolated residual."""
    priced = PricedTable(table, profile.dims)
    stages = priced.stages(table.shape, table.variant, profile.dims)
    return priced.own.seconds_each(stages, len(table.seconds))


def plot_page(profile: Profile) -> str:
    """A standalone HTML page: for every table measured microseconds over the innermost axis, and the form's."""
    from plotly import graph_objects as go  # noqa: PLC0415 (takes a third of a second to import)

    from sim.report import drawing  # noqa: PLC0415

    parts: list[str] = []
    for kernel in profile.kernels:
        for table in profile.tables(kernel):
            if table.fit is None:
                continue
            figure = _figure(go, table, profile)
            plot = drawing.figure_part(figure, f"figure-{len(parts)}")
            parts.append(f"<h2>{table.key}</h2>\n{plot}")
    body = "\n".join(parts)
    head = f"<!doctype html><meta charset='utf-8'><title>{profile.name}</title>{drawing.head()}"
    return f"{head}\n<h1>{profile.name}</h1>\n{body}\n"


CURVES = 12
"""Lines in one plot at most: the outer coordinates with the most shapes."""


def _figure(go: Any, table: Table, profile: Profile) -> Any:
    *outer, inner = FAMILIES[table.kernel].axes
    form = predicted(table, profile) * 1e6
    curves: dict[tuple[float, ...], list[int]] = defaultdict(list)
    for row in range(len(table.seconds)):
        curves[tuple(float(table.shape[a][row]) for a in outer)].append(row)
    figure = go.Figure()
    longest = sorted(curves.items(), key=lambda item: -len(item[1]))[:CURVES]
    for at, rows in sorted(longest):
        order = sorted(rows, key=lambda r: float(table.shape[inner][r]))
        name = ", ".join(f"{axis} {value:g}" for axis, value in zip(outer, at, strict=True))
        x = [float(table.shape[inner][r]) for r in order]
        figure.add_scatter(x=x, y=[float(table.seconds[r]) * 1e6 for r in order], mode="markers", name=name)
        figure.add_scatter(
            x=x, y=[float(form[r]) for r in order], mode="lines", name=f"{name}: form", showlegend=False
        )
    figure.update_layout(
        xaxis={"title": inner, "type": "log"}, yaxis={"title": "microseconds", "type": "log"}
    )
    return figure
