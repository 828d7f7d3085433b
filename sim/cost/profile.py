"""A profile: what was measured on one GPU with one engine, and the fit of each table.

On disk a profile is a directory: `profile.yaml` (device, engine, versions, attribution, one entry per table),
one Parquet file per kernel family with the measured shapes and microseconds, and `fit.json`, which `tokenworks
calibrate fit` writes (parameters, method and held-out error of each table).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow.parquet as pq
import yaml
from numpy.typing import NDArray

from sim.catalog import Gpu, described_gpu, gpu, model
from sim.catalog.profiles import HEADER, SHIPPED, shipped_profiles
from sim.cost.form import Form
from sim.files import read_text
from sim.kernels import FAMILIES
from sim.kernels.family import DEFAULTS, Dims, Variant

Floats = NDArray[np.float64]

FIT: Final = "fit.json"
TAKEN_OUT: Final = "taken_out_us"
"""Column of rows that measured something beside their kernels, launches or unfused norms: what was taken out of each
(`launches.csv` beside the profiles lists the tables). A price that rests on such rows is not called measured."""
COUNTED: Final = 2
"""Which counts of `sim.kernels` the rates of a fit stand on; a fit on others says nothing and must be made again."""
MEASURED_MODEL: Final = "deepseek-v3.2"
"""Architecture of the kernels unless the header names another: V3's widths, and the indexer's."""


class ProfileError(ValueError):
    """A profile that cannot be read; says which file and what was expected."""


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


@dataclass(frozen=True)
class Table:
    """One kernel family in one variant (dtype, options) by one backend."""

    kernel: str
    variant: Variant
    backend: str
    source: str
    """Campaign, engine version and table that the rows come from."""
    columns: Mapping[str, Floats]
    """Shape axis -> value per row."""
    seconds: Floats
    fit: Fit | None = None
    noise: float | None = None

    @cached_property
    def shape(self) -> dict[str, Floats]:
        """Every axis of the rows, with the ones that derive from others or were left out."""
        rows = len(self.seconds)
        placed = FAMILIES[self.kernel].reference({**DEFAULTS, **self.columns})
        return {axis: np.broadcast_to(np.asarray(value, np.float64), rows) for axis, value in placed.items()}

    @property
    def key(self) -> str:
        """Identity within a profile, such as `mla_decode/bf16/kv_cache=fp8/flashmla`."""
        options = ",".join(f"{k}={v}" for k, v in sorted(self.variant.options.items()))
        return "/".join(part for part in (self.kernel, self.variant.dtype, options, self.backend) if part)


@dataclass(frozen=True)
class Profile:
    """The tables of one GPU and engine; each family's rows are read when first asked for."""

    path: Path
    header: Mapping[str, Any]
    fits: Mapping[str, Fit]

    @property
    def name(self) -> str:
        """GPU and engine, such as `h200_sxm/vllm`, and the model whose kernels are others than V3's."""
        return "/".join((self.gpu, self.engine, *([self.header["model"]] if "model" in self.header else [])))

    @property
    def gpu(self) -> str:
        """Device that the kernels ran on: a catalog name, or the one that `device` describes."""
        return str(self.header["gpu"])

    @property
    def engine(self) -> str:
        """Engine whose kernels were measured."""
        return str(self.header["engine"])

    @cached_property
    def dims(self) -> Dims:
        """Architecture whose kernels were measured."""
        return Dims.of(model(self.header.get("model", MEASURED_MODEL)))

    @property
    def kernels(self) -> tuple[str, ...]:
        """Kernel families with at least one table."""
        return tuple(sorted({entry["kernel"] for entry in self.header["tables"]}))

    def tables(self, kernel: str) -> tuple[Table, ...]:
        """Every table of a family; empty where the profile has none. Raises ProfileError."""
        if kernel not in self._read:
            self._read[kernel] = _tables(self, kernel)
        return self._read[kernel]

    @cached_property
    def _read(self) -> dict[str, tuple[Table, ...]]:
        return {}


def _tables(profile: Profile, kernel: str) -> tuple[Table, ...]:
    entries = [e for e in profile.header["tables"] if e["kernel"] == kernel]
    if not entries:
        return ()
    columns = _read_columns(profile.path / f"{kernel}.parquet")
    number, us = columns.pop("table"), columns.pop("us")
    found = []
    for entry in entries:
        mine = number == entry["id"]
        table = Table(
            kernel,
            Variant(entry["dtype"], entry.get("options", {})),
            entry.get("backend", ""),
            entry["source"],
            {a: v[mine] for a, v in columns.items() if not np.isnan(v[mine]).any()},
            us[mine] * 1e-6,
            noise=entry.get("noise"),
        )
        found.append(Table(**{**_fields(table), "fit": profile.fits.get(table.key)}))
    return tuple(found)


def _read_columns(path: Path) -> dict[str, Floats]:
    """Columns of a file of numbers, without the detour by pandas that slows a first read to a third of a second."""
    try:
        with pq.ParquetFile(path) as file:
            rows = file.read(use_threads=False).combine_chunks()
        return {
            name: np.from_dlpack(rows[name].chunk(0)).astype(np.float64)  # type: ignore[attr-defined]
            for name in rows.column_names
        }
    except (OSError, ValueError) as error:
        raise ProfileError(f"{path}: expected the rows of a kernel family ({error})") from error


def _fields(table: Table) -> dict[str, Any]:
    return {name: getattr(table, name) for name in table.__dataclass_fields__}


@cache
def load_profile(name: str) -> Profile:
    """A shipped profile by name, or one by the path of its directory or of a file in it; read once.

    Raises:
        ProfileError: there is no such profile, or its header is not one.
    """
    given = Path(name)
    directory = next((p for p in (SHIPPED / name, given, given.parent) if (p / HEADER).is_file()), None)
    if directory is None:
        raise ProfileError(f"no profile `{name}`; shipped are {', '.join(shipped_profiles())}")
    return read_profile(directory)


def read_profile(directory: Path, fitted: bool = True) -> Profile:
    """The profile of a directory, read afresh; without `fitted` as if nothing had been fitted yet.

    Raises ProfileError: no header, or fits that an earlier release made on other counts of FLOP and bytes.
    """
    try:
        text = read_text(directory / HEADER)
        header = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (OSError, yaml.YAMLError) as error:
        raise ProfileError(f"{directory / HEADER}: expected the header of a profile ({error})") from error
    if not isinstance(header, dict) or not {"gpu", "engine", "tables"} <= header.keys():
        raise ProfileError(f"{directory / HEADER}: expected keys gpu, engine and tables")
    return Profile(directory, header, _read_fits(directory / FIT) if fitted else {})


def _read_fits(path: Path) -> dict[str, Fit]:
    if not path.is_file():
        return {}
    raw = json.loads(read_text(path))
    if raw.get("counted") != COUNTED:
        raise ProfileError(
            f"{path}: fitted by a release that counted FLOP and bytes otherwise: run `tokenworks calibrate fit "
            f"{path.parent}` again"
        )
    return {key: fit_from_json(entry) for key, entry in raw["tables"].items()}


def fit_from_json(entry: Mapping[str, Any]) -> Fit:
    """A fit from its entry in `fit.json`."""
    form = Form(
        entry["launch_s"], entry["sharpness"], tuple(entry["flop_per_s"]), tuple(entry["bytes_per_s"])
    )
    return Fit(form, entry["method"], entry.get("held_out", {}), entry.get("noise"))


def fit_to_json(fit: Fit) -> dict[str, Any]:
    """The entry of a fit in `fit.json`; rates in FLOP/s and bytes/s."""
    return {
        "launch_s": fit.form.launch_s,
        "sharpness": fit.form.sharpness,
        "flop_per_s": list(fit.form.flop_per_s),
        "bytes_per_s": list(fit.form.bytes_per_s),
        "method": fit.method,
        "held_out": {axis: dict(errors) for axis, errors in fit.held_out.items()},
        "noise": fit.noise,
    }


def device_gpu(profile: Profile) -> Gpu:
    """The GPU that a profile was measured on: the catalog's, or the one that its header describes.

    Raises:
        ProfileError: the description lacks the memory's size or speed, or the BF16 peak.
    """
    device = profile.header.get("device")
    if not device:
        return gpu(profile.gpu)
    try:
        return described_gpu(profile.gpu, device)
    except ValueError as error:
        raise ProfileError(f"{profile.path / HEADER}: {error}") from error
