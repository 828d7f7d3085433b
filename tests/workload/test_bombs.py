"""A small file that unpacks to a large one is refused before it fills the memory."""

import gzip
import json
import lzma
import resource
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

MEMORY_BYTES = 2**30
"""Of the address space beyond the libraries'; Python, numpy and pyarrow take most of it."""
HEAD = b"arrival_s,input_tokens,output_tokens\n"


PACK: dict[str, Callable[[bytes], bytes]] = {
    ".gz": partial(gzip.compress, compresslevel=1),
    ".xz": partial(lzma.compress, preset=0),
}
BOMBS: dict[str, Callable[[], bytes | pa.Table]] = {
    "rows.csv.gz": lambda: HEAD + b"0,1,1\n" * 30_000_000,
    "rows.csv.xz": lambda: HEAD + b"0,1,1\n" * 30_000_000,
    "lines.csv": lambda: HEAD + b"\n" * 50_000_000,
    "cells.csv": lambda: b"," * 60_000_000,
    "keys.jsonl": lambda: "".join(json.dumps({f"k{i}": 1}) + "\n" for i in range(30_000)).encode(),
    "numbers.jsonl": lambda: b'{"input": [' + b"0," * 40_000_000 + b"0]}",
    "rows.parquet": lambda: pa.table({
        "arrival_s": np.zeros(20_000_000), "input_tokens": np.ones(20_000_000, np.int8),
        "output_tokens": np.ones(20_000_000, np.int8),
    }),
    "words.parquet": lambda: pa.table({"input_tokens": ["x" * 1_000_000] * 280, "output_tokens": ["1"] * 280}),
    "dictionary.parquet": lambda: pa.table({
        "input_tokens": pa.DictionaryArray.from_arrays(np.zeros(3000, np.int8), ["x" * 1_000_000]),
        "output_tokens": ["1"] * 3000,
    }),
}  # fmt: skip
"""What is in the file, made when it is wanted: together they are a gigabyte."""


def drop(path: Path) -> None:
    """Write the bomb of that name."""
    content = BOMBS[path.name]()
    if isinstance(content, bytes):
        path.write_bytes(PACK.get(path.suffix, bytes)(content))
    else:
        pq.write_table(content, path, compression="zstd")


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_one_sentence(tmp_path: Path, name: str) -> None:
    drop(tmp_path / name)
    code = f"from sim.cli import main; import sys; sys.argv[1:] = ['trace', {str(tmp_path / name)!r}]; main()"
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=600, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES)),
    )  # fmt: skip
    assert told.returncode == 2, told.stderr[-2000:]
    assert name in told.stderr and ("at most" in told.stderr or "more than" in told.stderr)
    assert told.stderr.count("\n") <= 5
