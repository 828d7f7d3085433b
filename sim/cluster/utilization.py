"""The share of a pool's capacity that its load takes: what an autoscaler holds at its target.

    utilization = (seconds of prompts + sequence-steps x T(b) / (b ranks)) / seconds of service

T(b) is a decode step with b sequences on each rank, as many as seats or KV blocks take of those that run now. So it
grows in proportion to the load: a worker that decodes is always busy, and seats fill faster than the load grows.
"""

from collections.abc import Sequence

from sim.serving.decode_batch import DecodeBatch
from sim.step import StepCost


def sequence_steps(batches: Sequence[DecodeBatch]) -> int:
    """Decode steps so far, added up over sequences; of those that run, up to the last change of their batch."""
    running = (
        batch.done(sequence, rank)
        for batch in batches
        for rank, of_rank in enumerate(batch.ranks)
        for sequence in of_rank.members.values()
    )
    return sum(batch.sequence_steps for batch in batches) + sum(running)


def full_step_s(cost: StepCost, batches: Sequence[DecodeBatch]) -> float:
    """Worker seconds of one decode step of one sequence, T(b) / (b ranks); 0 where none runs."""
    contexts = [
        sequence.context_tokens + sequence.tokens_after(batch.done(sequence, rank))
        for batch in batches
        for rank, of_rank in enumerate(batch.ranks)
        for sequence in of_rank.members.values()
    ]
    if not contexts:
        return 0.0
    ranks = [rank for batch in batches for rank in batch.ranks]
    blocks = sum(rank.demand for rank in ranks) / sum(rank.seats for rank in ranks)
    most = max(1, min(batches[0].max_sequences, int(ranks[0].capacity / blocks)))
    table = cost.decode_table(most)
    attention_s = table.attention(most, sum(contexts) / len(contexts))[0]
    return table.line(most, float(most)).seconds(attention_s) / (most * len(batches[0].ranks))
