"""A scenario's pool -> its step cost: the operations of a step priced on a grid."""

from sim.catalog import Model
from sim.cost.latency import CostModel
from sim.step.cost import SurfaceStepCost
from sim.step.operations import StepOperations, typical_prompts
from sim.step.surface import Floats, Surface, grid

POINTS_PER_OCTAVE = 2
"""Grid points per doubling, of batch and of context. Halving the spacing changes step times by less than 1%
(tests/step)."""


def build_step_cost(
    operations: StepOperations, cost: CostModel, max_sequences: int, max_tokens: int, phases: tuple[str, ...]
) -> SurfaceStepCost:
    """Price the steps of a pool.

    `max_sequences` per attention-DP rank bounds the decode grid, `max_tokens` of a chunk the prefill grid;
    `phases` is what the pool does: prefill, decode or both.
    """
    model = operations.layout.model
    decode = prefill = None
    if "decode" in phases:
        sequences = grid(1, max(max_sequences, 2), POINTS_PER_OCTAVE)
        decode = Surface(
            sequences, _contexts(model), operations.decode_attention, operations.decode_rest, cost
        )
    if "prefill" in phases:
        tokens = grid(1, max(max_tokens, 2), POINTS_PER_OCTAVE)
        prefill = Surface(
            tokens,
            _contexts(model, operations.layout.dense_prefill_max_kv / 2),
            lambda x, context: operations.prefill_attention(*typical_prompts(x, context)),
            operations.prefill_rest,
            cost,
        )
    return SurfaceStepCost(decode, prefill)


def _contexts(model: Model, dense_mean: float = 0.0) -> Floats:
    """Context grid up to the model's longest, with points at the kinks of sparse attention: top-k, and just around
    the mean context at which prompts stop being short enough for the dense form."""
    kinks = [model.index_topk, dense_mean, dense_mean + 1] if model.sparse else []
    return grid(1, model.max_positions, POINTS_PER_OCTAVE, kinks)
