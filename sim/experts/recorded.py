"""Recorded expert counts from a file: what the engines' recorders write, read without running anything.

- JSON as SGLang's `--init-expert-location` takes it: `{"logical_count": ...}`, nested lists of shape (layers, experts),
  or (steps, layers, experts) as its recorder buffers them; a bare nested list does as well.
- CSV with the columns `layer_id,expert_id,count`, the recorder's first format (sgl-project/sglang#4435).
- NPZ or NPY: the array `logical_count`, or the only array of the file.

SGLang's `.pt` dumps are pickles: the error says how to turn one into JSON.
"""

import csv
import io
import json
import zipfile
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sim.files import read_regular, read_text

Floats = NDArray[np.float64]

LARGEST_COUNT: Final = 1e15
"""Tokens that an expert can have been sent: above, sums of counts lose their last digits."""
MOST_EXPERTS: Final = 100_000
MOST_BYTES: Final = 2**27
"""Of a file, and of what it unpacks to: a thousand recorded steps of the largest models."""

KEY = "logical_count"
CSV_COLUMNS = ("layer_id", "expert_id", "count")


def read_counts(path: Path) -> Floats:
    """Token counts of each expert, (MoE layers, experts); layers without any count (the dense ones) are left out.

    Raises ValueError for a file that is not one of the formats, FileNotFoundError where there is none.
    """
    readers = {".json": _json, ".csv": _csv, ".npz": _numpy, ".npy": _numpy}
    suffix = path.suffix.lower()
    if suffix == ".pt":
        raise ValueError(
            f"{path}: a .pt file is a pickle; convert it where torch is installed: "
            'json.dump({"logical_count": torch.load(FILE, weights_only=True)["logical_count"].sum(0).tolist()}, OUT)'
        )
    if suffix not in readers:
        raise ValueError(f"{path}: expected recorded expert counts as {', '.join(readers)}")
    try:
        counts = np.asarray(readers[suffix](path), dtype=np.float64)
    except (
        KeyError,
        TypeError,
        ValueError,
        OverflowError,
        RecursionError,
        zipfile.BadZipFile,
        EOFError,
    ) as error:
        raise ValueError(f"{path}: not a table of expert counts: {error}") from error
    if counts.ndim == 3:
        counts = counts.sum(axis=0)
    if counts.ndim != 2:
        raise ValueError(
            f"{path}: expected (layers, experts) or (steps, layers, experts), got {counts.shape}"
        )
    if not ((counts >= 0) & (counts <= LARGEST_COUNT)).all():
        raise ValueError(f"{path}: counts must be finite and not negative, at most {LARGEST_COUNT:g}")
    counts = np.compress(counts.sum(axis=1) > 0, counts, axis=0)
    if not counts.size:
        raise ValueError(f"{path}: no layer has any count")
    return counts


def _json(path: Path) -> object:
    content = json.loads(read_text(path, MOST_BYTES))
    return content[KEY] if isinstance(content, dict) else content


def _csv(path: Path) -> Floats:
    lines = io.StringIO(read_text(path, MOST_BYTES), newline="")
    rows = [[float(row[column]) for column in CSV_COLUMNS] for row in csv.DictReader(lines)]
    table = np.asarray(rows, dtype=np.float64).reshape(len(rows), len(CSV_COLUMNS))
    layer, expert = table[:, 0].astype(np.int64), table[:, 1].astype(np.int64)
    if not rows or min(layer.min(), expert.min()) < 0 or expert.max() > MOST_EXPERTS:
        raise ValueError(f"layer_id and expert_id count from 0; at most {MOST_EXPERTS:,} experts")
    layers, layer_row = np.unique(layer, return_inverse=True)
    counts = np.zeros((len(layers), expert.max() + 1))
    np.add.at(counts, (layer_row, expert), table[:, 2])
    return counts


def _numpy(path: Path) -> Floats:
    raw = read_regular(path, MOST_BYTES)
    if zipfile.is_zipfile(io.BytesIO(raw)):
        with zipfile.ZipFile(io.BytesIO(raw)) as packed:
            if sum(item.file_size for item in packed.infolist()) > MOST_BYTES:
                raise ValueError(f"holds more than {MOST_BYTES:,} bytes")
    loaded = np.load(io.BytesIO(raw), allow_pickle=False)
    if isinstance(loaded, np.ndarray):
        return loaded
    with loaded:
        names = loaded.files
        if KEY not in names and len(names) != 1:
            raise ValueError(f"expected the array {KEY!r} among {names}")
        array: Floats = loaded[KEY if KEY in names else names[0]]
        return array
