"""A service in its steady state by equations, not events: an answer at once, for the simulation to confirm."""

from sim.steady.demand import Demand, demand_of
from sim.steady.point import OperatingPoint
from sim.steady.state import SteadyState, steady

__all__ = ["Demand", "OperatingPoint", "SteadyState", "demand_of", "steady"]
