"""What real traffic asks of a model, where a scenario does not say."""

from functools import cache

from sim.catalog.facts import read, values


@cache
def popularity_sigma() -> float:
    """Sigma of the lognormal popularity of experts, per layer, in recorded traffic."""
    return float(values(read("traffic.yaml"))["popularity_sigma"])
