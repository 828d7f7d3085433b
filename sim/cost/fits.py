"""How the tables of a profile are turned into seconds: `fit.json`, which `tokenworks calibrate fit` writes."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from sim.cost.form import Form
from sim.cost.sound import check_fit
from sim.files import read_text

FIT: Final = "fit.json"
COUNTED: Final = 2
"""Which counts of `sim.kernels` the rates of a fit stand on; a fit on others says nothing and must be made again."""


class ProfileError(ValueError):
    """A profile that cannot be read; says which file and what was expected."""


@dataclass(frozen=True, slots=True)
class Prior:
    """A shipped table that prices the shapes of one with too few points, times one factor per family."""

    profile: str
    """Name of the shipped profile."""
    table: str
    """Key of its table."""
    factor: float
    """One's own seconds over the table's: the median over the points of the family."""
    spread: tuple[float, float]
    """p10 and p90 of that ratio over the table's own points."""
    points: int

    @property
    def words(self) -> str:
        """Which table, times what, and how far the points of one's own spread."""
        low, high = self.spread
        spread = f"p10 {low:.3g} to p90 {high:.3g} over {self.points} points"
        return f"{self.profile}: {self.table} x {self.factor:.3g}, {spread}"


@dataclass(frozen=True, slots=True)
class Fit:
    """How a table is turned into seconds, and how well that predicts shapes left out of it."""

    form: Form
    method: str
    """`linear` (between neighbouring shapes) or `fitted` (the form times an interpolated log-residual)."""
    held_out: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Axis -> median and p90 of |predicted / measured - 1| over whole values of the axis left out."""
    noise: float | None = None
    """Median relative half-spread of repeated measurements of one shape; None where nothing was repeated."""
    prior: Prior | None = None
    """What prices the table instead of its own few points; `form` and `method` are still theirs."""
    by_tokens: bool = False
    """Whether the shapes lie along the tokens of all prompts together (`Family.by_tokens`)."""


def read_fits(path: Path) -> dict[str, Fit]:
    """The fits of a profile by table; none where the file is not there. Raises ProfileError."""
    if not path.is_file():
        return {}
    try:
        raw = json.loads(read_text(path))
    except (OSError, ValueError, RecursionError) as error:
        raise ProfileError(f"{path}: expected the fits of a profile ({error})") from error
    if not isinstance(raw, dict) or not isinstance(raw.get("tables"), dict):
        raise ProfileError(f"{path}: expected the fits of a profile, by table")
    if raw.get("counted") != COUNTED:
        raise ProfileError(
            f"{path}: fitted by a release that counted FLOP and bytes otherwise: run `tokenworks calibrate fit "
            f"{path.parent}` again"
        )
    for key, entry in raw["tables"].items():
        try:
            check_fit(entry)
        except ValueError as error:
            raise ProfileError(f"{path}: {key}: {error}") from None
    return {key: _from_json(entry) for key, entry in raw["tables"].items()}


def _from_json(entry: Mapping[str, Any]) -> Fit:
    """A fit from its entry in `fit.json`."""
    rates = tuple(entry["flop_per_s"]), tuple(entry["bytes_per_s"])
    form = Form(entry["launch_s"], entry["sharpness"], *rates, entry.get("hiding", 1.0))
    prior = Prior(**{**p, "spread": tuple(p["spread"])}) if (p := entry.get("prior")) else None
    held_out, by_tokens = entry.get("held_out", {}), entry.get("by_tokens", False)
    return Fit(form, entry["method"], held_out, entry.get("noise"), prior, by_tokens)


def fit_to_json(fit: Fit) -> dict[str, Any]:
    """The entry of a fit in `fit.json`; rates in FLOP/s and bytes/s."""
    return {
        "launch_s": fit.form.launch_s,
        "sharpness": fit.form.sharpness,
        "flop_per_s": list(fit.form.flop_per_s),
        "bytes_per_s": list(fit.form.bytes_per_s),
        **({"hiding": fit.form.hiding} if fit.form.hiding != 1 else {}),
        "method": fit.method,
        **({"by_tokens": True} if fit.by_tokens else {}),
        "held_out": {axis: dict(errors) for axis, errors in fit.held_out.items()},
        "noise": fit.noise,
        **({"prior": asdict(fit.prior)} if fit.prior else {}),
    }
