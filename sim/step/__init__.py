"""A batch -> one step's seconds, broken down by operation."""

from sim.step.protocol import DecodeTable, RankPrompts, StepCost

__all__ = ["DecodeTable", "RankPrompts", "StepCost"]
