"""The attention-DP ranks of a pool, by their addresses."""

from typing import NamedTuple


class RankAddress(NamedTuple):
    """One rank of a pool."""

    worker: int
    rank: int
    """Among those of its worker."""


def pool_ranks(workers: int, dp: int) -> tuple[RankAddress, ...]:
    """All ranks of a pool in the order in which equals are chosen: neighbours sit on different workers."""
    return tuple(RankAddress(worker, rank) for rank in range(dp) for worker in range(workers))
