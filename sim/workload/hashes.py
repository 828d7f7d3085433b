"""Block hashes of a file of requests: how many tokens a block has, and whether the hashes can be."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from itertools import count as numbers
from operator import eq

import numpy as np
from numpy.typing import NDArray

from sim.workload.columns import index
from sim.workload.table import FileTable, Wrong

Ints = NDArray[np.int64]
Hashes = list[tuple[int, ...]]


@dataclass(frozen=True)
class Blocks:
    """The hashes of every prompt, each for a block of `tokens` tokens and all before it."""

    hashes: Hashes
    tokens: int
    without: int
    """Prompts that had none: they are given hashes of their own, so that nothing of them is found again."""


def hashes(cell: object) -> tuple[int, ...]:
    """A list of whole numbers; nothing is none. Raises ValueError."""
    if cell is None or cell == "":
        return ()
    if not isinstance(cell, list) or not {int}.issuperset(map(type, cell)):
        raise ValueError("expected a list of whole numbers")
    return tuple(cell)


def blocks_of(table: FileTable, column: str, input_tokens: Ints, found: Hashes) -> Blocks | None:
    """The blocks of a file's prompts; None where no prompt has any.

    Raises ScenarioError where hashes do not fit the prompts, or one stands for two different beginnings.
    """
    if not any(found):
        return None
    size = _block_tokens(input_tokens, np.array([len(ids) for ids in found]))
    table.refuse(_wrong(column, size, input_tokens, found))
    fresh = numbers(1 + max(max(ids, default=0) for ids in found))
    without = sum(not ids for ids in found)
    if without:
        found = [
            ids or tuple(next(fresh) for _ in range(-(-tokens // size)))
            for ids, tokens in zip(found, input_tokens.tolist(), strict=True)
        ]
    return Blocks(found, size, without)


def _block_tokens(input_tokens: Ints, lengths: Ints) -> int:
    """The size of block that explains the number of hashes of every prompt: of those in use, else the roundest.

    Where none does, that of those in use which explains most. A prompt of n blocks has more than n - 1 times the size.
    """
    tokens, lengths = input_tokens[lengths > 0], lengths[lengths > 0]
    sizes: list[int] = index()["block_tokens"]
    fits = [int((-(-tokens // size) == lengths).sum()) for size in sizes]
    several = lengths > 1
    if max(fits) < len(tokens) and several.any():
        least = int((-(-tokens // lengths)).max())
        most = int(((tokens[several] - 1) // (lengths[several] - 1)).min())
        if least <= most:
            return max(range(least, min(most, 2 * least) + 1), key=lambda size: size & -size)
    return sizes[int(np.argmax(fits))]


def _wrong(column: str, size: int, input_tokens: Ints, found: Hashes) -> list[Wrong]:
    """Hashes of a prompt: one for each block that it begins, each standing for its block and all before it."""
    counted = -(-input_tokens // size)
    lengths = np.array([*map(len, found)])
    if ((lengths == counted) | (lengths == 0)).all() and _chained(found):
        return []
    wrong: list[Wrong] = []
    before: dict[int, int | None] = {}
    for row, (ids, blocks, tokens) in enumerate(
        zip(found, counted.tolist(), input_tokens.tolist(), strict=True)
    ):
        if ids and len(ids) != blocks:
            says = f"expected {blocks} for {tokens} tokens in blocks of {size}, got {len(ids)}"
            wrong.append((row, column, f"{column}: {says}"))
        for block, previous in zip(ids, (None, *ids), strict=False):
            if before.setdefault(block, previous) != previous:
                says = f"{block} follows {previous} here and {before[block]} elsewhere"
                wrong.append((row, column, f"{column}: expected chained hashes; {says}"))
                break
    return wrong


def _chained(found: Hashes) -> bool:
    """Whether each hash always follows the same one."""

    def previous() -> Iterable[int | None]:
        return chain.from_iterable((None, *ids[:-1]) for ids in found if ids)

    first = map(dict[int, int | None]().setdefault, chain.from_iterable(found), previous())
    return all(map(eq, first, previous()))
