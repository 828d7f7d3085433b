"""Where one's own points are few: a shipped table of the same kernels, times one factor per family.

Four of SGLang's FP8 products on an H100, interpolated, miss the other 2,216 by 20 / 107% (median / p90); the H200's
table times one factor misses them by 7 / 21%. The prior is a table of the same GPU, else of the GPU with the nearest
datasheet; of several engines' tables those count whose ratios to one's own points spread least.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import exp, log
from typing import Final

import numpy as np
from numpy.typing import NDArray

from calibrate.coverage import table_words
from calibrate.fit import score, summary
from sim.catalog import Gpu, gpu
from sim.catalog.profiles import shipped_profiles
from sim.cost.fits import Fit, Prior
from sim.cost.priced_table import PricedTable
from sim.cost.profile import Profile, Table, load_profile
from sim.kernels import FAMILIES

Floats = NDArray[np.float64]

FEWEST_KNOTS: Final = 3
"""Values of the innermost axis, such as row counts per width of a GEMM, that a line needs to tell its own bend."""
MOST_MISSING: Final = 0.5
"""Share of its plan that a table may lack before it counts as one of few points."""
ERRORS: Final = "factor"
"""What the held-out error of a table with a prior is named after: each point is left out of the factor in turn."""


@dataclass(frozen=True)
class Match:
    """A table of one's own beside a prior of it."""

    own: Table
    prior: Table
    of: Profile
    """The profile of the prior."""
    ratios: Floats
    """log(own seconds / the prior's), at one's own shapes."""


def with_priors(profile: Profile, device: Gpu, fits: Mapping[str, Fit]) -> dict[str, Fit]:
    """The fits, with a prior for each table of few points that it predicts better, or that cannot tell its own error.

    A profile of a CPU has none: no shipped table is of one.
    """
    found = dict(fits)
    if profile.header.get("environment", {}).get("device") == "cpu":
        return found
    priors = [load_profile(name) for name in nearest_profiles(device, profile.engine)]
    for kernel in profile.kernels:
        few = [t for t in profile.tables(kernel) if is_few(t) or _is_cut(t, profile)]
        for match, factor in _matches(few, profile, priors):
            key = match.own.key
            fit = _scaled(match, factor, fits[key])
            if not fits[key].held_out or score(_errors(fit)) <= score(_errors(fits[key])):
                found[key] = fit
    return found


def nearest_profiles(device: Gpu, engine: str) -> list[str]:
    """Shipped profiles of the GPU, else of the one with the nearest memory and matrix units; the engine's own first."""
    measured = sorted({name.split("/")[0] for name in shipped_profiles()})

    def distance(name: str) -> float:
        other = gpu(name)
        return abs(log(other.memory_bytes_per_s / device.memory_bytes_per_s)) + abs(
            log(other.bf16_flop_per_s / device.bf16_flop_per_s)
        )

    named = next((n for n in (device.name, device.nearest_measured) if n in measured), None)
    nearest = named or min(measured, key=distance)
    found = [name for name in shipped_profiles() if name.split("/")[0] == nearest]
    return sorted(found, key=lambda name: name.split("/")[1] != engine)


def is_few(table: Table) -> bool:
    """Whether less than half of the rows lie on lines along the innermost axis of at least `FEWEST_KNOTS` values."""
    *outer, inner = FAMILIES[table.kernel].axes
    lines: dict[tuple[float, ...], set[float]] = defaultdict(set)
    rows = len(table.seconds)
    at = [tuple(float(table.shape[a][row]) for a in outer) for row in range(rows)]
    for row in range(rows):
        lines[at[row]].add(float(table.shape[inner][row]))
    return 2 * sum(len(lines[line]) >= FEWEST_KNOTS for line in at) < rows


def _is_cut(table: Table, profile: Profile) -> bool:
    """Whether its calibration was stopped, or asked to be quick, before half of the table was there."""
    words = table_words(table.kernel, table.variant.dtype, table.variant.options)
    done, planned = profile.header.get("coverage", {}).get(words, (1, 1))
    return bool(done < (1 - MOST_MISSING) * planned)


def _matches(few: Sequence[Table], own: Profile, priors: Sequence[Profile]) -> Iterator[tuple[Match, float]]:
    """Tables of one family with their priors of one engine, and the one log-factor of the family."""
    candidates = [[m for t in few if (m := _match(t, own, prior))] for prior in priors]
    if not any(candidates):
        return
    # The most tables, then the least spread; `priors` are in order of preference where neither decides.
    matches = min(candidates, key=lambda found: (-len(found), _spread([m.ratios for m in found])))
    factor = float(np.median(np.concatenate([m.ratios for m in matches])))
    yield from ((match, factor) for match in matches)


def _match(own: Table, of: Profile, prior: Profile) -> Match | None:
    """The prior's table for a table: of the same dtype and no other options, the back-end whose ratios spread least."""
    widths = FAMILIES[own.kernel].widths
    if any(getattr(of.dims, width) != getattr(prior.dims, width) for width in widths):
        return None
    options = own.variant.options.items()
    fitting = [
        table
        for table in prior.tables(own.kernel)
        if table.variant.dtype == own.variant.dtype and table.variant.options.items() <= options and table.fit
    ]
    found = [Match(own, table, prior, _ratios(own, PricedTable(table, prior.dims))) for table in fitting]
    return min(found, key=lambda match: _spread([match.ratios]), default=None)


def _ratios(own: Table, prior: PricedTable) -> Floats:
    """log(own / prior) at one's own shapes that the prior measured around; at all of them where it did at none."""
    shapes = [{a: float(v[row]) for a, v in own.columns.items()} for row in range(len(own.seconds))]
    times = [prior.seconds(shape) for shape in shapes]
    inside = np.array([how != "extrapolated" for _, how in times])
    ratios: Floats = np.log(own.seconds / np.array([seconds for seconds, _ in times]))
    known: Floats = ratios[inside]
    return known if len(known) else ratios


def _spread(ratios: Sequence[Floats]) -> float:
    """Mean distance from the median."""
    every = np.concatenate(ratios) if ratios else np.zeros(1)
    return float(np.mean(np.abs(every - np.median(every))))


def _scaled(match: Match, factor: float, own: Fit) -> Fit:
    ratios = match.ratios
    spread = tuple(float(np.exp(np.quantile(ratios, share))) for share in (0.1, 0.9))
    rest = [np.delete(ratios, i) for i in range(len(ratios))] if len(ratios) > 1 else []
    errors = [abs(exp(float(np.median(r))) / exp(float(ratios[i])) - 1) for i, r in enumerate(rest)]
    scaled = Prior(match.of.name, match.prior.key, exp(factor), (spread[0], spread[1]), len(ratios))
    return replace(own, prior=scaled, held_out={ERRORS: summary(errors)} if errors else {})


def _errors(fit: Fit) -> dict[str, tuple[float, float]]:
    return {axis: (errors["median"], errors["p90"]) for axis, errors in fit.held_out.items()}
