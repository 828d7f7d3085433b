"""Ranks that decode the same sequences on and on."""

from dataclasses import dataclass

from sim.step.decode_lines import DecodeLines


@dataclass
class Steady:
    """A rank with so many sequences and so much context from a step on."""

    sequences: int
    context: float
    growth: float
    since: int = 0

    def load(self, step):
        return self.sequences, self.context + (step - self.since) * self.growth, self.growth


def lines_of(cost, ranks):
    """Their lines from step 0 on."""
    lines = DecodeLines(cost, ranks)
    lines.hold(max(rank.sequences for rank in ranks))
    lines.renew(range(len(ranks)), 0)
    return lines
