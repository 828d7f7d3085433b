"""Reading the DeepSeek slices of NVIDIA's aiconfigurator tables, less the rows that `qa_flags.csv` leaves out."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from sim.cost.profile import Table
from sim.kernels.family import Variant
from sim.scenario.errors import brief

FLAGS: Final = Path(__file__).parent / "data" / "qa_flags.csv"
SYSTEMS: Final = {"gb200_nvl72": "gb200", "gb300_nvl72": "gb300"}
"""Catalog names of GPUs whose tables are filed under another name."""
ENGINES: Final = ("sglang", "trtllm", "vllm")
DTYPES: Final = {"fp8_block": "fp8", "bfloat16": "bf16", "nvfp4": "nvfp4", "fp8": "fp8", "half": "bf16"}
"""The tables' precision names -> ours."""


class MissingTable(FileNotFoundError):
    """A folder that lacks one of the tables; says which file was expected."""


SPIKE: Final = 0.1
"""Share above both neighbours at which a row timed more than its kernels (see `spikes`): even in the noisiest table
(GB200 with SGLang) nine in ten repeats lie within 8.5% of their mean."""


@cache
def flags() -> pd.DataFrame:
    """Rows that are known to be wrong, superseded or misunderstood: table, query, action, evidence, effect."""
    return pd.read_csv(FLAGS, keep_default_na=False)


@cache
def read_frame(path: Path) -> pd.DataFrame:
    """A table as it is, with the rows that the flags leave out. Raises MissingTable."""
    if not path.is_file():
        raise MissingTable(f"{path}: expected this table in the folder given with --from")
    try:
        frame = pd.read_parquet(path)
    except (ValueError, OSError) as error:  # a torn one, or none
        raise MissingTable(f"{path}: cannot be read as Parquet ({brief(str(error))})") from error
    text = frame.select_dtypes("category").columns
    return frame.astype(dict.fromkeys(text, "str"))


@dataclass(frozen=True)
class Source:
    """A folder of tables, seen from one GPU and one engine."""

    folder: Path
    gpu: str
    engine: str

    def rows(self, name: str, engine: str | None = None, **equal: Any) -> pd.DataFrame:
        """Rows of a table for this GPU and engine (or another `engine`) whose columns equal the values given.

        Raises:
            MissingTable: the folder has no such table.
        """
        frame = read_frame(self.folder / f"{name}.parquet")
        wanted = {"system": SYSTEMS.get(self.gpu, self.gpu), "fw": engine or self.engine, **equal}
        for column, value in wanted.items():
            frame = frame[frame[column] == value]
        for flag in flags().itertuples():
            if flag.table == name and flag.action in LEFT_OUT and len(frame):
                frame = frame.drop(LEFT_OUT[str(flag.action)](frame.query(str(flag.query))).index)
        return frame


def spikes(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows over 10% slower than both neighbours along the cached prefix (`step`), all else equal.

    A longer prefix is more work for the same kernels, so no kernel explains a rise that is gone at the next one; a
    host that was interrupted while launching does, and it only ever adds time. Neighbours are medians of what is left
    of their shape, and leaving out goes on until no row is above them: `limit_ms` is the slower of the two. The first
    and last prefix have one neighbour and stay.
    """
    line = [name for name in frame.columns if name not in ("step", "latency_ms")]
    found = []
    while True:
        shapes = frame.groupby([*line, "step"], dropna=False)["latency_ms"].median().reset_index()
        along = shapes.groupby(line, dropna=False)["latency_ms"]
        limits = shapes.drop(columns="latency_ms").assign(
            limit_ms=np.maximum(along.shift(1), along.shift(-1))
        )
        beside = frame.merge(limits, on=[*line, "step"], how="left").set_index(frame.index)
        above = beside[beside.latency_ms > beside.limit_ms * (1 + SPIKE)]
        found.append(above)
        if above.empty:
            return pd.concat(found)
        frame = frame.drop(above.index)


LEFT_OUT: Final[Mapping[str, Callable[[pd.DataFrame], pd.DataFrame]]] = {
    "exclude": lambda rows: rows,
    "spikes": spikes,
}
"""Action of a flag -> which of the rows that its query selects are left out."""
WITH: Final = "with "
"""How the action of a flag begins whose rows were timed with a family that has tables of its own."""


def included(name: str, rows: pd.DataFrame) -> tuple[str, ...]:
    """Families that ran inside the timed call of all these rows of a table, by the flags."""
    found = []
    for flag in flags().itertuples():
        action = str(flag.action)
        if flag.table == name and action.startswith(WITH) and len(rows.query(str(flag.query))) == len(rows):
            found.append(action.removeprefix(WITH))
    return tuple(found)


def table(
    kernel: str, dtype: str, options: Mapping[str, str], backend: str, source: str,
    axes: Mapping[str, Any], seconds: Any, includes: tuple[str, ...] = (),
) -> Iterator[Table]:  # fmt: skip
    """The rows as one table: repeated shapes become their median, and their spread the table's noise.

    Yields nothing where there are no rows.
    """
    frame = pd.DataFrame({a: np.broadcast_to(np.asarray(v, float), len(seconds)) for a, v in axes.items()})
    if frame.empty:
        return
    names = list(frame.columns)
    grouped = frame.assign(seconds=np.asarray(seconds, float)).groupby(names, sort=True)["seconds"]
    median = grouped.median()
    repeated = grouped.agg(["min", "max", "size"]).query("size > 1")
    noise = float(((repeated["max"] / repeated["min"] - 1) / 2).median()) if len(repeated) else None
    shapes = median.index.to_frame(index=False)
    columns = {name: shapes[name].to_numpy() for name in names}
    yield Table(
        kernel, Variant(dtype, dict(options)), backend, source, columns, median.to_numpy(), noise=noise,
        includes=includes,
    )  # fmt: skip


def groups(frame: pd.DataFrame, by: Sequence[str]) -> Iterator[tuple[tuple[Any, ...], pd.DataFrame]]:
    """The frame split by columns, in their order."""
    for key, part in frame.groupby(list(by), sort=True):
        yield key if isinstance(key, tuple) else (key,), part


def label(frame: pd.DataFrame) -> str:
    """Where rows come from: engine and version."""
    return ", ".join(sorted({f"{fw} {ver}" for fw, ver in zip(frame["fw"], frame["ver"], strict=True)}))
