"""What an engine holds on a GPU of a pool: weights, and what a token, a request and a seat take of the cache."""

from dataclasses import dataclass, replace

from sim.catalog import Engine, Gpu
from sim.kernels.formats import MXFP4_BLOCK, weight_bytes
from sim.model import architecture
from sim.model.attention import kinds
from sim.model.layout import Layout


@dataclass(frozen=True, slots=True)
class CacheTaken:
    """Bytes on one GPU, over all layers."""

    token_bytes: float
    """Of one more token of a long sequence."""
    request_bytes: float = 0.0
    """Of a sequence beside its tokens."""
    seats_bytes: float = 0.0
    """Of all seats of a rank, whether a sequence runs there or not."""


def weights_held(engine: Engine, gpu: Gpu, layout: Layout, redundant: int) -> float:
    """Bytes of the weights on one GPU, with what the engine leaves of their loading and adds for its kernels."""
    parts = architecture.weight_bytes_per_gpu(
        layout.model,
        gpus=layout.gpus,
        tp=layout.tp,
        redundant=redundant,
        shared_as_slot=layout.shared_as_slot,
        weights=layout.weights,
        attention=layout.attention_weights,
        dense=layout.dense_weights,
        mtp=layout.mtp,
        sharding=layout.over,
        absorbed=engine.absorbed_weights,
    )
    repacked = parts["routed"] if layout.weights == "mxfp4" and gpu.generation == "hopper" else 0.0
    left = engine.left_scale_bytes / float(weight_bytes(MXFP4_BLOCK, "mxfp4"))
    return sum(parts.values()) + repacked * left + _unquantised(engine, gpu, layout) + _rotary(engine, layout)


def _unquantised(engine: Engine, gpu: Gpu, layout: Layout) -> float:
    """What BF16 adds to matrices of the attention for which the engine has no kernel in their format on this GPU."""
    names = engine.hopper_bf16_matrices if gpu.generation == "hopper" else ()
    elements = sum(
        layers * matrix.parameters_on_gpu(layout.tp)
        for kind, layers in kinds(layout.model, layout.mtp)
        for matrix in kind.matrices()
        if matrix.name in names
    )
    return float(weight_bytes(elements, "bf16") - weight_bytes(elements, layout.attention_weights))


def _rotary(engine: Engine, layout: Layout) -> float:
    """Rotations for every position, of a model with compressed entries: its layers with and without them turn at
    different rates."""
    model = layout.model
    if not model.compressed:
        return 0.0
    rates = {"ratio" in dict(group.sizes) for group in model.layer_groups(layout.mtp)}
    return len(rates) * engine.rotary_pair_bytes * model.max_positions * model.qk_rope / 2


def uncounted_drafts(engine: Engine, gpu: Gpu, layout: Layout, redundant: int) -> float:
    """Of the weights, those of the MTP module that an engine loads when it has drawn up its cache; else 0."""
    if engine.draft_weights_counted or not layout.mtp:
        return 0.0
    alone = weights_held(engine, gpu, replace(layout, mtp=False), redundant)
    return weights_held(engine, gpu, layout, redundant) - alone


def cache_taken(engine: Engine, layout: Layout, seats: int) -> CacheTaken:
    """By the engine's rule.

    Where it has a pool of windows and states, both are of the token: `window_pool_share` of a token's part of what a
    request holds; with drafts the states' rings are twice as long, and all is as if the module were one layer more of
    the model. States of `seat_states` stand for every seat, and two more, whatever it holds. Where windows and states
    take pages of the one pool, a request takes as much as `state_tokens` more tokens.
    """
    model, drafts = layout.model, layout.mtp
    states = architecture.state_bytes_per_request(model, drafts)
    if not states or not engine.window_pool_share:
        cached = model, layout.kv_cache, drafts, layout.tp
        token = architecture.cache_bytes_per_token(*cached)
        request = architecture.cache_bytes_per_request(*cached)
        return CacheTaken(token, engine.state_tokens * token if states and engine.state_tokens else request)
    token, request = (
        of(model, layout.kv_cache, False, layout.tp)
        for of in (architecture.cache_bytes_per_token, architecture.cache_bytes_per_request)
    )
    rings = 2 if drafts else 1
    by_seat = sum(n * kind.state_bytes() for kind, n in kinds(model) if kind.name in engine.seat_states)
    in_pool = request - states + rings * (states - by_seat)
    window = max(group.size("window") for group in model.layer_groups(drafts))
    layers = (model.layers + model.nextn) / model.layers if drafts else 1.0
    seats_bytes = (seats + 2) * rings * by_seat if by_seat else 0.0
    return CacheTaken((token + engine.window_pool_share * in_pool / window) * layers, 0.0, seats_bytes)
