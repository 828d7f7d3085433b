"""A profile: what was measured on one GPU with one engine, and the fit of each table.

On disk a profile is a directory: `profile.yaml` (device, engine, versions, attribution, one entry per table),
one Parquet file per kernel family with the measured shapes and microseconds, and `fit.json`, which `tokenworks
calibrate fit` writes (parameters, method and held-out error of each table).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from sim.catalog import Gpu, UnknownName, described_gpu, gpu, model
from sim.catalog.profile_header import read_header
from sim.catalog.profiles import HEADER, SHIPPED, is_shipped, shipped_profiles
from sim.cost.fits import FIT, Fit, Prior, ProfileError, read_fits
from sim.cost.record import CALIBRATION
from sim.cost.sound import check_axes, check_columns
from sim.cost.words import LONGEST, check_variant
from sim.files import read_regular
from sim.kernels import FAMILIES
from sim.kernels.family import DEFAULTS, Dims, Variant

Floats = NDArray[np.float64]

TAKEN_OUT: Final = "taken_out_us"
"""Column of rows that measured something beside their kernels, launches or unfused norms: what was taken out of each
(`launches.csv` beside the profiles lists the tables). A price that rests on such rows is not called measured."""
MEASURED_MODEL: Final = "deepseek-v3.2"
"""Architecture of the kernels unless the header names another: V3's widths, and the indexer's."""


MOST_BYTES, MOST_ROWS = 64 * 2**20, 2_000_000
"""Of one family's file: a hundred times the largest that ships."""


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
    includes: tuple[str, ...] = ()
    """Families that ran inside the timed call as well, such as the quantisation of a product's input."""

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
    as_timed: bool = False
    """Whether its rows hold what was timed, launches and unfused norms included (see TAKEN_OUT)."""

    @property
    def name(self) -> str:
        """GPU and engine, such as `h200_sxm/vllm`, and the model whose kernels are others than V3's."""
        return "/".join((self.gpu, self.engine, *([self.header["model"]] if "model" in self.header else [])))

    @property
    def calibrated(self) -> bool:
        """Whether somebody measured it on GPUs of their own, rather than imported it."""
        return bool(self.header.get("attribution", {}).get("source") == CALIBRATION)

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
    path = profile.path / f"{kernel}.parquet"
    columns = _read_columns(path)
    number, us = columns.pop("table"), columns.pop("us")
    found = []
    for entry in entries:
        mine = number == entry["id"]
        shown = {a: v[mine] for a, v in columns.items() if not np.isnan(v[mine]).any()}
        taken_us = shown.pop(TAKEN_OUT, 0.0) if profile.as_timed else 0.0
        table = Table(
            kernel,
            Variant(entry["dtype"], entry.get("options", {})),
            entry.get("backend", ""),
            entry["source"],
            shown,
            (us[mine] + taken_us) * 1e-6,
            noise=entry.get("noise"),
            includes=tuple(entry.get("includes", ())),
        )
        with of_rows(profile, table):
            check_axes(kernel, table.columns.keys(), len(table.seconds))
        found.append(Table(**{**_fields(table), "fit": profile.fits.get(table.key)}))
    stray = ~np.isin(number, [entry["id"] for entry in entries])
    if stray.any():
        row = int(np.argmax(stray))
        raise ProfileError(
            f"{path}: column table, row {row + 1:,}: the header lists no table {number[row]:g}"
        )
    return tuple(found)


def _read_columns(path: Path) -> dict[str, Floats]:
    """Columns of a file of numbers, without the detour by pandas that slows a first read to a third of a second."""
    try:
        with pq.ParquetFile(pa.BufferReader(read_regular(path, MOST_BYTES))) as file:
            if file.metadata.num_rows > MOST_ROWS:  # a small file may unpack to any number
                raise ValueError(f"{file.metadata.num_rows:,} rows; at most {MOST_ROWS:,}")
            rows = file.read(use_threads=False).combine_chunks()
        columns = {
            name: np.from_dlpack(rows[name].chunk(0)).astype(np.float64)  # type: ignore[attr-defined]
            for name in rows.column_names
        }
        check_columns(columns)
        return columns
    except (OSError, ValueError, TypeError, LookupError, BufferError, pa.ArrowException) as error:
        raise ProfileError(f"{path}: expected the rows of a kernel family ({error})") from error


def _fields(table: Table) -> dict[str, Any]:
    return {name: getattr(table, name) for name in table.__dataclass_fields__}


@cache
def load_profile(name: str, as_timed: bool = False) -> Profile:
    """A shipped profile by name, or one by the path of its directory or of a file in it; read once.

    as_timed: its rows with what the import took out of them.

    Raises:
        ProfileError: there is no such profile, or its header is not one.
    """
    given = Path(name)
    directory = next((p for p in (SHIPPED / name, given, given.parent) if (p / HEADER).is_file()), None)
    if directory is None:
        raise ProfileError(f"no profile `{name}`; shipped are {', '.join(shipped_profiles())}")
    return replace(read_profile(directory), as_timed=as_timed)


def read_profile(directory: Path, fitted: bool = True) -> Profile:
    """The profile of a directory, read afresh; without `fitted` as if nothing had been fitted yet.

    Raises ProfileError: no header, or fits that an earlier release made on other counts of FLOP and bytes.
    """
    try:
        header = read_header(directory)
        for place, entry in enumerate(header["tables"]):
            for name in (entry["kernel"], *entry.get("includes", ())):
                if name not in FAMILIES:
                    raise ValueError(f"tables.{place}: no kernel family is called {name[:LONGEST]}")
            try:
                check_variant(entry["dtype"], entry.get("options", {}))
            except ValueError as error:
                raise ValueError(f"tables.{place}: {error}") from None
    except (OSError, ValueError) as error:
        raise ProfileError(f"{directory / HEADER}: expected the header of a profile ({error})") from error
    return Profile(directory, header, read_fits(directory / FIT) if fitted else {})


@contextmanager
def of_rows(profile: Profile, table: Table) -> Iterator[None]:
    """Says of a ValueError which rows it is about."""
    try:
        yield
    except ValueError as error:
        raise ProfileError(f"{profile.path / f'{table.kernel}.parquet'}: {table.key}: {error}") from None


def prior_table(prior: Prior) -> tuple[Table, Profile]:
    """The table of a prior, and the profile that it is of. Raises ProfileError where this release does not ship it."""
    if not is_shipped(prior.profile):
        raise ProfileError(f"no profile `{prior.profile}` is shipped: run `tokenworks calibrate fit` again")
    profile = load_profile(prior.profile)
    table = next((t for t in profile.tables(prior.table.split("/")[0]) if t.key == prior.table), None)
    if table is None:
        raise ProfileError(
            f"{prior.profile} has no table {prior.table}: run `tokenworks calibrate fit` again"
        )
    return table, profile


def device_gpu(profile: Profile) -> Gpu:
    """The GPU that a profile was measured on: the catalog's, or the one that its header describes.

    Raises:
        ProfileError: no device of that name, or its description lacks the memory's size or speed, or the BF16 peak.
    """
    device = profile.header.get("device")
    try:
        if not device:
            return gpu(profile.gpu)
        return described_gpu(profile.gpu, device)
    except (ValueError, UnknownName) as error:
        raise ProfileError(f"{profile.path / HEADER}: {error}") from error
