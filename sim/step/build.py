"""A scenario's pool -> its step cost: the operations of a step priced on a grid."""

from collections.abc import Mapping

import numpy as np

from sim.cost.latency import CostModel
from sim.model.attention import context_kinks
from sim.model.layout import Layout, Phase
from sim.model.operations import Operation
from sim.step.cost import DecodeLevel, SurfaceStepCost
from sim.step.operations import StepOperations, typical_prompts
from sim.step.prompts import PromptAttention
from sim.step.surface import Floats, Surface, grid

POINTS_PER_OCTAVE = 2
"""Grid points per doubling, of batch and of context. Halving the spacing changes step times by less than 1%
(tests/step)."""
PROMPT_POINTS_PER_OCTAVE = 3
"""The same of prompt tokens, where rooflines turn from traffic to compute: with two a step is up to 3.1% off."""


Range = tuple[float, float]


def build_step_cost(
    operations: Mapping[str, StepOperations],
    cost: CostModel,
    max_sequences: int,
    max_tokens: int,
    contexts: Mapping[str, Range] | None = None,
) -> SurfaceStepCost:
    """Price the steps of a pool.

    `operations` by phase: prefill, decode or both, as the pool does. `max_sequences` per attention-DP rank bounds
    the decode grid, `max_tokens` of a chunk the prefill grid. `contexts` by phase: the range that will be asked for;
    the same points of the grid are priced as without, but for those that such contexts do not lie between.
    """
    decode, prefill, prompts = [], None, None
    if steps := operations.get("decode"):
        points = _contexts(steps.layout, "decode", (contexts or {}).get("decode"))
        for up_to, step in steps.levels():
            sequences = grid(1, max(min(max_sequences, up_to), 2), POINTS_PER_OCTAVE)
            parts = (step.decode_attention, step.decode_rest, cost, step.overlap, step.layout.dp)
            surface = Surface(sequences, points, *parts)
            decode.append(DecodeLevel(up_to, surface, 1 + step.draft_tokens))
            if up_to >= max_sequences:
                break
    if chunk := operations.get("prefill"):
        # Beyond the largest captured prompt the host launches everything: a step in time, not a slope.
        graph = chunk.overlap.graph_tokens
        tokens = grid(1, max(max_tokens, 2), PROMPT_POINTS_PER_OCTAVE, (graph, graph + 1))
        points = _contexts(chunk.layout, "prefill", (contexts or {}).get("prefill"))

        def attention(tokens: float, context: float) -> list[Operation]:
            return chunk.prefill_attention(*typical_prompts(tokens, context))

        prefill = Surface(tokens, points, attention, chunk.prefill_rest, cost, chunk.overlap, chunk.layout.dp)
        prompts = PromptAttention(chunk, prefill, cost)
    return SurfaceStepCost(decode, prefill, prompts)


def _contexts(layout: Layout, phase: Phase, within: Range | None) -> Floats:
    """Context grid up to the model's longest, with points at the kinks of its attention."""
    points = grid(1, layout.model.max_positions, POINTS_PER_OCTAVE, context_kinks(layout, phase))
    if within is None:
        return points
    first, last = np.searchsorted(points, within[0], side="right") - 1, np.searchsorted(points, within[1])
    return np.unique([points[0], *points[max(0, first) : max(2, last + 1)]])
