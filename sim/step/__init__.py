"""A batch -> one step's seconds, broken down by operation."""

from sim.step.load import PromptLoad, RankPrompts
from sim.step.protocol import DecodeTable, StepCost

__all__ = ["DecodeTable", "PromptLoad", "RankPrompts", "StepCost"]
