"""A scenario's pool -> its step cost: the operations of a step priced on a grid."""

from collections.abc import Mapping

from sim.cost.latency import CostModel
from sim.model.attention import context_kinks
from sim.model.layout import Layout, Phase
from sim.model.operations import Operation
from sim.step.cost import DecodeLevel, SurfaceStepCost
from sim.step.operations import StepOperations, typical_prompts
from sim.step.prices import Prices
from sim.step.prompts import PromptAttention
from sim.step.surface import Floats, Surface, grid

POINTS_PER_OCTAVE = 2
"""Grid points per doubling, of batch and of context. Halving the spacing changes step times by less than 1%
(tests/step)."""
PROMPT_POINTS_PER_OCTAVE = 3
"""The same of prompt tokens, where rooflines turn from traffic to compute: with two a step is up to 3.1% off."""


class PoolPrices:
    """The steps of a pool, priced as they are asked for."""

    def __init__(self, operations: Mapping[str, StepOperations], costs: Mapping[str, CostModel]) -> None:
        """`operations`, and what prices them, by phase: prefill, decode or both, as the pool does."""
        decode, self._prefill, self._costs = operations.get("decode"), operations.get("prefill"), costs
        self._decode = [
            (
                up_to,
                step,
                Prices(
                    step.decode_attention, step.decode_rest, costs["decode"], step.overlap, step.layout.dp
                ),
            )
            for up_to, step in (decode.levels() if decode else ())
        ]
        if chunk := self._prefill:

            def attention(tokens: float, context: float) -> list[Operation]:
                return chunk.prefill_attention(*typical_prompts(tokens, context))

            self._chunks = Prices(
                attention, chunk.prefill_rest, costs["prefill"], chunk.overlap, chunk.layout.dp
            )

    def step_cost(self, max_sequences: int, max_tokens: int) -> SurfaceStepCost:
        """`max_sequences` per attention-DP rank bounds the decode grid, `max_tokens` of a chunk the prefill grid."""
        decode, prefill, prompts = [], None, None
        for up_to, step, prices in self._decode:
            sequences = grid(1, max(min(max_sequences, up_to), 2), POINTS_PER_OCTAVE)
            surface = Surface(sequences, _contexts(step.layout, "decode"), prices)
            decode.append(DecodeLevel(up_to, surface, 1 + step.draft_tokens))
            if up_to >= max_sequences:
                break
        if chunk := self._prefill:
            # Beyond the largest captured prompt the host launches everything: a step in time, not a slope.
            graph = chunk.overlap.graph_tokens
            tokens = grid(1, max(max_tokens, 2), PROMPT_POINTS_PER_OCTAVE, (graph, graph + 1))
            prefill = Surface(tokens, _contexts(chunk.layout, "prefill"), self._chunks)
            prompts = PromptAttention(chunk, prefill, self._costs["prefill"])
        return SurfaceStepCost(decode, prefill, prompts)


def build_step_cost(
    operations: Mapping[str, StepOperations], cost: CostModel, max_sequences: int, max_tokens: int
) -> SurfaceStepCost:
    """Price the steps of a pool; see `PoolPrices`."""
    return PoolPrices(operations, dict.fromkeys(operations, cost)).step_cost(max_sequences, max_tokens)


def _contexts(layout: Layout, phase: Phase) -> Floats:
    """Context grid up to the model's longest, with points at the kinks of its attention."""
    return grid(1, layout.model.max_positions, POINTS_PER_OCTAVE, context_kinks(layout, phase))
