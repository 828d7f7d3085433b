"""What real traffic asks of a model, where a scenario does not say."""

from functools import cache

from sim.catalog.facts import read, values


@cache
def popularity_sigma() -> float:
    """Sigma of the lognormal popularity of experts, per layer, in recorded traffic."""
    return float(values(read("traffic.yaml"))["popularity_sigma"])


@cache
def curve_utc_offsets_h() -> dict[str, float]:
    """Hours that the clock of a shipped daily curve is ahead of UTC, by its name."""
    found: dict[str, float] = values(read("traffic.yaml"))["curve_utc_offset_h"]
    return found
