"""Over which GPUs of a worker an engine shards what is not attention, for memory and time alike.

A part has one copy on each `gpu`, on the GPUs of each attention `rank`, or on the whole `worker`. Whoever holds a
copy together sees the same tokens: a GPU its slice of its rank's, a worker those of all its ranks, gathered before
and scattered after.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from sim.catalog import Engine

Over = Literal["gpu", "rank", "worker"]


@dataclass(frozen=True, slots=True)
class Sharding:
    """GPUs that hold one copy of each part together."""

    shared: int
    """The shared expert; the gate sees the same tokens."""
    dense_ffn: int
    head: int
    embedding: int

    @classmethod
    def over_ranks(cls, tp: int) -> "Sharding":
        """Everything over the `tp` GPUs of an attention rank."""
        return cls(tp, tp, tp, tp)


def engine_sharding(engine: Engine, gpus: int, tp: int, all_to_all: bool) -> Sharding:
    """How the engine shards a worker of `gpus` GPUs whose attention ranks have `tp`.

    `all_to_all`: each token goes to its own experts; else the ranks' tokens are gathered. Sources: `sharding_*` in
    `sim/catalog/engines`.
    """
    rules: Mapping[str, Over] = engine.sharding_all_to_all if all_to_all else engine.sharding_gathered
    sizes: dict[Over, int] = {"gpu": 1, "rank": tp, "worker": gpus}
    return Sharding(**{part: sizes[over] for part, over in rules.items()})
