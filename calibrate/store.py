"""Writing profiles: the header, one Parquet file per kernel family, and the fit beside them."""

import json
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from sim.catalog.profiles import HEADER
from sim.cost.fits import COUNTED, FIT, Fit, fit_to_json
from sim.cost.profile import Table
from sim.saving import whole_folder, write_whole


@contextmanager
def whole_profile(directory: Path) -> Iterator[Path]:
    """A folder to write a profile to, which takes the place of `directory` at once, or not at all where it fails.

    Profiles of other models in folders of that directory stay.
    """
    with whole_folder(directory, last=HEADER, ours=("*.parquet", FIT)) as made:
        yield made
        for header in directory.glob(f"*/{HEADER}"):
            shutil.copytree(header.parent, made / header.parent.name)


def save_profile(directory: Path, header: Mapping[str, Any], tables: Sequence[Table]) -> None:
    """Write header and rows, replacing a profile of that directory; its fit is removed, since the rows changed."""
    directory.mkdir(parents=True, exist_ok=True)
    for stale in [*directory.glob("*.parquet"), directory / FIT]:
        stale.unlink(missing_ok=True)
    entries = []
    by_kernel: dict[str, list[tuple[int, Table]]] = defaultdict(list)
    for number, table in enumerate(tables):
        entry: dict[str, Any] = {"id": number, "kernel": table.kernel, "dtype": table.variant.dtype}
        entry |= {"options": dict(table.variant.options)} if table.variant.options else {}
        entry |= {"backend": table.backend} if table.backend else {}
        entry |= {"includes": list(table.includes)} if table.includes else {}
        entry |= {"source": table.source, "rows": len(table.seconds)}
        entry |= {"noise": round(table.noise, 5)} if table.noise is not None else {}
        entries.append(entry)
        by_kernel[table.kernel].append((number, table))
    for kernel, members in by_kernel.items():
        _write_rows(directory / f"{kernel}.parquet", members)
    text = yaml.safe_dump({**header, "tables": entries}, sort_keys=False, width=110)
    (directory / HEADER).write_text(text, encoding="utf-8")


def _write_rows(path: Path, members: Sequence[tuple[int, Table]]) -> None:
    axes = sorted({axis for _, table in members for axis in table.columns})
    columns: dict[str, list[np.ndarray]] = defaultdict(list)
    for number, table in members:
        rows = len(table.seconds)
        columns["table"].append(np.full(rows, number, dtype=np.int16))
        for axis in axes:
            columns[axis].append(np.asarray(table.columns.get(axis, np.full(rows, np.nan)), dtype=np.float64))
        columns["us"].append(np.asarray(table.seconds * 1e6, dtype=np.float32))
    frame = pa.table({name: np.concatenate(parts) for name, parts in columns.items()})
    pq.write_table(frame, path, compression="zstd", compression_level=19)


def save_fits(directory: Path, fits: Mapping[str, Fit]) -> None:
    """Write the fit of every table beside the profile, at once: an earlier one stays until then."""
    content = {"counted": COUNTED, "tables": {key: fit_to_json(fit) for key, fit in sorted(fits.items())}}
    write_whole(directory / FIT, json.dumps(content, indent=1, allow_nan=False) + "\n")
