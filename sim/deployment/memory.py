"""What a GPU's memory is spent on, and how many tokens of cache that leaves."""

from dataclasses import dataclass
from math import ceil

from sim.catalog import Engine
from sim.units import GB_BYTES


@dataclass(frozen=True, slots=True)
class MemoryBudget:
    """The memory of one GPU of a pool, bytes.

    memory = weights + reserve + KV cache + what the engine leaves unused. An attention-DP rank is `tp` GPUs: TP
    does not shard a latent cache, so its GPUs hold the same tokens, and `kv_tokens` is per rank either way.
    """

    memory_bytes: float
    weights_bytes: float
    reserve_bytes: float
    """Activations, CUDA graphs, communication buffers, and the share that the engine may not use."""
    kv_cache_bytes: float
    """What is left for the cache; 0 where weights and reserve do not fit."""
    cache_bytes_per_token: float
    """Of one more token of a long sequence on one GPU, over all layers."""
    cache_bytes_per_request: float
    """Of a sequence beside its tokens: full windows, and states of a fixed size."""
    block_tokens: int
    missing_bytes: float
    """What lacks for the first KV block of a sequence; 0 where the layout fits."""
    seats_bytes: float = 0.0
    """Of the reserve, what the cache keeps for every seat, whether a sequence runs there or not."""

    @property
    def kv_tokens(self) -> int:
        """Tokens that the cache of one attention-DP rank holds."""
        return int(self.kv_cache_bytes // self.cache_bytes_per_token)

    @property
    def kv_blocks(self) -> int:
        """Whole KV blocks per attention-DP rank."""
        return self.kv_tokens // self.block_tokens

    @property
    def request_blocks(self) -> int:
        """Blocks that a sequence takes beside those of its tokens: an engine shares one pool out."""
        return ceil(self.cache_bytes_per_request / (self.block_tokens * self.cache_bytes_per_token))

    def tokens_of(self, sequences: int, tokens: int) -> int:
        """KV tokens that `sequences` sequences of `tokens` tokens take."""
        return sequences * (tokens + self.request_blocks * self.block_tokens)

    @property
    def fits(self) -> bool:
        """Whether at least one KV block has room."""
        return self.missing_bytes == 0

    @property
    def missing_gb(self) -> float:
        """What lacks, in GB (1e9 bytes)."""
        return self.missing_bytes / GB_BYTES


def budget_for(
    engine: Engine,
    memory_bytes: float,
    weights_bytes: float,
    reserve_bytes: float,
    cache_bytes_per_token: float,
    fraction: float | None = None,
    cache_bytes_per_request: float = 0.0,
    seats_bytes: float = 0.0,
    uncounted_bytes: float = 0.0,
) -> MemoryBudget:
    """The budget by an engine's rule; `fraction` takes the place of the engine's own memory flag.

    `uncounted_bytes`: of the weights, those that are loaded when the cache is drawn up, into what it leaves.

    A static fraction holds weights and cache, and is all there is for them: whatever the rest needs is outside it.
    It is of the memory that is free before weights are loaded, and what is in use then stands outside it too.
    """
    within, of_free = engine.memory_fraction, engine.kv_fraction_of_free
    if engine.memory_flag == "static":
        within = fraction if fraction is not None else 1 - reserve_bytes / memory_bytes
        of_free, reserve_bytes = 1.0, within * engine.runtime_bytes
    elif fraction is not None and engine.memory_flag == "total":
        within = fraction
    elif fraction is not None:
        of_free = fraction
    return memory_budget(
        memory_bytes,
        weights_bytes,
        reserve_bytes,
        cache_bytes_per_token,
        engine.kv_block_tokens,
        within,
        of_free,
        cache_bytes_per_request,
        seats_bytes,
        uncounted_bytes,
    )


def memory_budget(
    memory_bytes: float,
    weights_bytes: float,
    reserve_bytes: float,
    cache_bytes_per_token: float,
    block_tokens: int,
    memory_fraction: float = 1.0,
    kv_fraction_of_free: float = 1.0,
    cache_bytes_per_request: float = 0.0,
    seats_bytes: float = 0.0,
    uncounted_bytes: float = 0.0,
) -> MemoryBudget:
    """The budget that an engine draws up:

        kv = kv_fraction_of_free x (memory_fraction x memory - weights - reserve) - seats

    Weights of `uncounted_bytes` are part of the reserve there.

    Sources of the fractions and of the reserve: `sim/catalog/engines`.
    """
    withheld = (1 - memory_fraction) * memory_bytes
    free = memory_bytes - withheld - (weights_bytes - uncounted_bytes) - reserve_bytes
    first_bytes = (
        block_tokens * cache_bytes_per_token + cache_bytes_per_request + seats_bytes
    ) / kv_fraction_of_free
    return MemoryBudget(
        memory_bytes=memory_bytes,
        weights_bytes=weights_bytes,
        reserve_bytes=reserve_bytes + withheld - uncounted_bytes + seats_bytes,
        kv_cache_bytes=max(0.0, kv_fraction_of_free * free - seats_bytes),
        cache_bytes_per_token=cache_bytes_per_token,
        cache_bytes_per_request=cache_bytes_per_request,
        block_tokens=block_tokens,
        missing_bytes=max(0.0, first_bytes - free),
        seats_bytes=seats_bytes,
    )
