"""A batch -> one step's seconds, broken down by operation."""

from sim.step.protocol import StepCost

__all__ = ["StepCost"]
