"""A batch -> one step's seconds, broken down by operation."""

from sim.step.protocol import DecodeRun, StepCost

__all__ = ["DecodeRun", "StepCost"]
