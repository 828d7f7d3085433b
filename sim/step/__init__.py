"""A batch -> one step's seconds, broken down by operation."""

from sim.step.load import PromptLoad
from sim.step.protocol import DecodeRun, StepCost

__all__ = ["DecodeRun", "PromptLoad", "StepCost"]
