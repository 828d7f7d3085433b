"""One measured table as a function: shape -> seconds, and how that number came about.

Inside the hull either linear interpolation between neighbouring shapes, or the fitted form times a log-residual
that is interpolated between them; whichever predicted left-out axis values better (`calibrate fit` decides).
Outside the hull the nearest measured shape, carried on by the fitted form: more work never gets faster.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from math import exp, log1p

import numpy as np

from sim.cost.axes import AXES, DEFAULTS, FREE, reference
from sim.cost.form import STAGES, Dims, Form
from sim.cost.interpolate import ON_KNOTS, OUTSIDE, Node, Stretch, build, lookup
from sim.cost.latency import Bound, PricedBy
from sim.cost.profile import ProfileError, Table

BOUNDS: Mapping[str, Bound] = {
    "launch": "launch", "compute": "compute", "memory": "memory", "scale_up": "link", "scale_out": "link",
}  # fmt: skip


class PricedTable:
    """A table with its interpolation, built on first use.

    `form` replaces the table's own for pricing on another GPU: measured seconds are then multiplied by what the
    two forms say about the shape.
    """

    def __init__(self, table: Table, dims: Dims, form: Form | None = None) -> None:
        if table.fit is None:
            raise ProfileError(f"table {table.key} has no fit: run `tokenworks calibrate fit` on its profile")
        self.table, self.dims = table, dims
        self.own, self.form = table.fit.form, form or table.fit.form
        self.linear = table.fit.method == "linear"
        self.axes = AXES[table.kernel]
        self.stages = STAGES[table.kernel]
        self.defaults = {**DEFAULTS, "index_heads": float(dims.index_heads)}
        free = FREE.get(table.kernel, ())
        self.free = {a: float(table.shape[a][0]) for a in free if a in table.shape}

    @cached_property
    def tree(self) -> Node:
        """Seconds over the raw axes (linear), or log-residuals over log(1 + axis) (fitted)."""
        shape, seconds = self.table.shape, self.table.seconds
        grid = [shape[axis] for axis in self.axes]
        if self.linear:
            return build(grid, seconds)
        stages = self.stages(shape, self.table.variant, self.dims)
        by_form = self.own.seconds_each(stages, len(seconds))
        return build([np.log1p(axis) for axis in grid], np.log(seconds / by_form))

    def seconds(self, operation_shape: Mapping[str, float]) -> tuple[float, PricedBy]:
        """Seconds of one layer at a shape, and how they were found."""
        shape = {**self.defaults, **operation_shape}
        at = reference(self.table.kernel, shape)
        same = all(shape.get(axis, value) == value for axis, value in self.free.items())
        if not same:
            at = {**at, **self.free}
        work = self.stages(shape, self.table.variant, self.dims)
        if self.linear:
            value, where = lookup(self.tree, [at[a] for a in self.axes], self._stretch(at))
            if at is not shape:
                value *= self.own.seconds(work) / self._own_seconds(at)
        else:
            residual, where = lookup(self.tree, [log1p(at[a]) for a in self.axes])
            value = self.own.seconds(work) * exp(residual)
        if self.form is not self.own:
            return value * self.form.seconds(work) / self.own.seconds(work), "scaled"
        if where == OUTSIDE or not same:
            return value, "extrapolated"
        return value, "measured" if where == ON_KNOTS or self.linear else "fitted"

    def bound(self, operation_shape: Mapping[str, float]) -> Bound:
        """What takes most of the time at a shape, by the fitted form."""
        work = self.stages({**self.defaults, **operation_shape}, self.table.variant, self.dims)
        terms = self.form.terms(self.table.kernel, work)
        return BOUNDS[max(terms, key=lambda name: terms[name])]

    def _own_seconds(self, shape: Mapping[str, float]) -> float:
        return self.own.seconds(self.stages(shape, self.table.variant, self.dims))

    def _stretch(self, at: Mapping[str, float]) -> Stretch:
        def stretch(point: Sequence[float], depth: int, knot: float) -> float:
            shape = {**at, **dict(zip(self.axes, point, strict=True))}
            return self._own_seconds(shape) / self._own_seconds({**shape, self.axes[depth]: knot})

        return stretch
