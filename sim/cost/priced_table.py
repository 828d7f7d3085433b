"""One measured table as a function: shape -> seconds, and how that number came about.

Inside the hull either linear interpolation between neighbouring shapes, or the fitted form times the interpolated
ratio of measured to form; whichever predicted left-out axis values better (`calibrate fit` decides). Outside the
hull the nearest measured shape, carried on by another engine's measurements or by the form: more work never gets
faster.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from math import expm1, log1p

import numpy as np

from sim.cost.fits import ProfileError
from sim.cost.form import Form
from sim.cost.interpolate import ON_KNOTS, OUTSIDE, Carry, Floats, GridNode, build, lookup
from sim.cost.latency import Bound, PricedBy
from sim.cost.profile import TAKEN_OUT, Table
from sim.cost.tiles import padded
from sim.kernels import FAMILIES
from sim.kernels.family import DEFAULTS, Dims, Stage, Variant

BOUNDS: Mapping[str, Bound] = {
    "launch": "launch", "compute": "compute", "memory": "memory", "cache": "memory",
    "scale_up": "link", "scale_out": "link",
}  # fmt: skip


class PricedTable:
    """A table with its interpolation, built on first use.

    form: replaces the table's own for pricing on another GPU: measured seconds are then multiplied by what the two
    forms say about the work that the kernel does at the shape, the padding of its tiles included.
    meant: what is asked for, where the table is of another format: scaled alike.
    peer: another engine's table of the same kernels on the same GPU. Where it was measured further, its growth
    rather than the form carries a shape beyond this table's hull.
    """

    def __init__(
        self,
        table: Table,
        dims: Dims,
        form: Form | None = None,
        peer: "PricedTable | None" = None,
        meant: Variant | None = None,
    ) -> None:
        if table.fit is None:
            raise ProfileError(f"table {table.key} has no fit: run `tokenworks calibrate fit` on its profile")
        self.table, self.dims, self.peer, self.meant = table, dims, peer, meant or table.variant
        self.own, self.form = table.fit.form, form or table.fit.form
        self.linear = table.fit.method == "linear"
        self.family = FAMILIES[table.kernel]
        self.by_tokens = self.family.by_tokens if table.fit.by_tokens else ()
        self.axes, self.stages = self.family.axes, self.family.work
        self.defaults = {**DEFAULTS, "index_heads": float(dims.index_heads)}
        self.no_prefix = "cached" in self.axes and not table.shape["cached"].any()
        self.free = {a: float(table.shape[a][0]) for a in self.family.free if a in table.shape}

    @cached_property
    def tree(self) -> GridNode:
        """Seconds over the axes (linear), or seconds / form over log(1 + axis) (fitted)."""
        return self._over([self.table.shape[axis] for axis in self.axes])

    @cached_property
    def tree_by_tokens(self) -> GridNode:
        """The same over the axes of `Family.by_tokens`."""
        placed = self.family.together(self.table.shape)
        return self._over([placed[axis] for axis in self.by_tokens])

    def _over(self, grid: Sequence[Floats]) -> GridNode:
        shape, seconds = self.table.shape, self.table.seconds
        if self.linear:
            return build(grid, seconds)
        stages = self.stages(shape, self.table.variant, self.dims)
        return build([np.log1p(axis) for axis in grid], seconds / self.own.seconds_each(stages, len(seconds)))

    def _looked_up(self, at: Mapping[str, float]) -> tuple[float, int]:
        """Seconds, or seconds / form, at a shape and where that lies: by tokens where rows enclose it so, else by the
        axes."""
        if self.by_tokens:
            placed = self.family.together(at)
            found, where = lookup(self.tree_by_tokens, [self._place(placed[a]) for a in self.by_tokens])
            if where != OUTSIDE:
                return found, where
        return lookup(self.tree, [self._place(at[a]) for a in self.axes], self._carry(at))

    def _place(self, x: float) -> float:
        return x if self.linear else log1p(x)

    @cached_property
    def taken(self) -> GridNode | None:
        """Seconds that were taken out of the rows, over the axes; None where they stand as measured."""
        if TAKEN_OUT not in self.table.columns:
            return None
        shape = self.table.shape
        return build([np.log1p(shape[axis]) for axis in self.axes], self.table.columns[TAKEN_OUT] * 1e-6)

    def taken_out_s(self, operation_shape: Mapping[str, float]) -> float:
        """Seconds that were taken out of the rows around a shape."""
        if self.taken is None:
            return 0.0
        at = self.family.reference({**self.defaults, **operation_shape})
        return lookup(self.taken, [log1p(at[a]) for a in self.axes])[0]

    def seconds(self, operation_shape: Mapping[str, float]) -> tuple[float, PricedBy]:
        """Seconds of one layer at a shape, and how they were found."""
        shape = {**self.defaults, **operation_shape}
        at = self.family.reference(shape)
        same = all(shape.get(axis, value) == value for axis, value in self.free.items())
        if not same:
            at = {**at, **self.free}
        if self.no_prefix and shape["cached"] > 0:
            return self._behind_prefix(shape)
        value, where = self._looked_up(at)
        if not self.linear:
            value *= self._form_seconds(shape)
        elif at is not shape:
            value *= self._form_seconds(shape) / self._form_seconds(at)
        if self.form is not self.own:
            meant, own = self._computed(shape, self.meant), self._computed(shape, self.table.variant)
            return value * self.form.seconds(meant) / self.own.seconds(own), "scaled"
        if where == OUTSIDE or not same:
            return value, "extrapolated"
        return value, self._inside(shape, where == ON_KNOTS)

    def _inside(self, shape: Mapping[str, float], on_knots: bool = False) -> PricedBy:
        """How a price between the rows was found."""
        as_measured = (on_knots or self.linear) and self.taken_out_s(shape) == 0
        return "measured" if as_measured else "fitted"

    def parts(self, operation_shape: Mapping[str, float]) -> tuple[tuple[PricedBy, float], ...]:
        """The same seconds by how they were found: up to the last measured row, and what is carried on from there.

        Several queries of a sequence are held by the measured row of as many sequences of one query each; what the
        form adds or takes off for the cache that they share is carried on.
        """
        seconds, how = self.seconds(operation_shape)
        inside = self._inside_s(operation_shape) if how == "extrapolated" else 0.0
        if operation_shape.get("queries", 1.0) > 1 and "queries" in self.free and how == "extrapolated":
            alone = self.family.reference({**self.defaults, **operation_shape})
            held, known = self.seconds(alone)
            inside = seconds - abs(held - seconds) if known != "extrapolated" else 0.0
        if not 0 < inside < seconds:
            return ((how, seconds),)
        return ((self._inside({**self.defaults, **operation_shape}), inside), (how, seconds - inside))

    def _inside_s(self, operation_shape: Mapping[str, float]) -> float:
        """Seconds at the last measured row on the way to a shape; 0 where there is none on it."""
        shape = {**self.defaults, **operation_shape}
        if any(shape.get(axis, value) != value for axis, value in self.free.items()):
            return 0.0
        if self.no_prefix and shape["cached"] > 0:
            seconds, how = self.seconds({**shape, "cached": 0.0})
            return seconds if how != "extrapolated" else 0.0
        at = self.family.reference(shape)

        def stay(value: float, point: Sequence[float], depth: int, knot: float) -> float:
            if self.linear:
                return value
            places = dict(zip(self.axes, map(expm1, point), strict=True))
            start = self.family.moved(at, {**places, self.axes[depth]: expm1(knot)})
            return value * self._form_seconds(start) / self._form_seconds(self.family.moved(at, places))

        if self.linear:
            value, _ = lookup(self.tree, [at[a] for a in self.axes], stay)
            return value * (1.0 if at is shape else self._form_seconds(shape) / self._form_seconds(at))
        share, _ = lookup(self.tree, [log1p(at[a]) for a in self.axes], stay)
        return share * self._form_seconds(shape)

    def _behind_prefix(self, shape: Mapping[str, float]) -> tuple[float, PricedBy]:
        """New tokens behind a cached prefix, by a table of prompts without one: what the form adds for the prefix."""
        alone = {**shape, "cached": 0.0}
        seconds, how = self.seconds(alone)
        stages = [self.stages(s, self.meant, self.dims) for s in (shape, alone)]
        growth = self.form.seconds(stages[0]) - self.form.seconds(stages[1])
        return seconds + growth, how if how == "scaled" else "extrapolated"

    def bound(self, operation_shape: Mapping[str, float]) -> Bound:
        """What takes most of the time at a shape, by the fitted form."""
        work = self._computed({**self.defaults, **operation_shape}, self.meant)
        terms = self.form.terms(self.table.kernel, work)
        return BOUNDS[max(terms, key=lambda name: terms[name])]

    def _computed(self, shape: Mapping[str, float], variant: Variant) -> list[Stage]:
        """The stages of the kernel's work: of whole tiles where the table is scaled, else the useful work."""
        stages = self.stages(shape, variant, self.dims)
        if self.form is self.own:
            return stages
        backend = self.table.backend if variant == self.table.variant else ""
        return padded(self.table.kernel, backend, variant.dtype, shape, stages)

    def _form_seconds(self, shape: Mapping[str, float]) -> float:
        return self.own.seconds(self.stages(shape, self.table.variant, self.dims))

    def _carry(self, at: Mapping[str, float]) -> Carry:
        """From a knot of one axis to where the shape lies beyond it: by the peer's growth, or in proportion to the
        form."""

        def carry(value: float, point: Sequence[float], depth: int, knot: float) -> float:
            places = list(point) if self.linear else [expm1(x) for x in point]
            end = dict(zip(self.axes, places, strict=True))
            shape = self.family.moved(at, end)
            start = self.family.moved(at, {**end, self.axes[depth]: knot if self.linear else expm1(knot)})
            growth = self._peer_growth(start, shape)
            if growth is None:
                return value * self._form_seconds(shape) / self._form_seconds(start) if self.linear else value
            if self.linear:
                return value + growth
            return (value * self._form_seconds(start) + growth) / self._form_seconds(shape)

        return carry

    def _peer_growth(self, start: Mapping[str, float], end: Mapping[str, float]) -> float | None:
        """Seconds that the peer takes longer at `end` than at `start`; None where it was not measured at `start`.

        Beyond its own hull the peer is carried by its form, so that nothing jumps where its rows end.
        """
        if self.peer is None:
            return None
        (before, how), (after, _) = self.peer.seconds(start), self.peer.seconds(end)
        return max(0.0, after - before) if how != "extrapolated" else None
