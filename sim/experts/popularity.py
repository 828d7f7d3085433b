"""Popularity: how large a share of the token-expert pairs each expert of each layer draws, and how it drifts.

All arrays are (layers, experts); shares sum to 1 over the experts of a layer.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def lognormal_popularity(sigma: float, layers: int, experts: int, rng: np.random.Generator) -> Floats:
    """Independent lognormal shares, p_e = exp(sigma z_e) / sum, z_e ~ N(0, 1); sigma 0 is exactly even.

    One sigma near 1.05 describes the load that TensorRT-LLM's engineers recorded for R1 (see docs/experts.md).
    """
    weight = np.exp(sigma * rng.standard_normal((layers, experts)))
    return _shares(weight)


def counted_popularity(counts: Floats) -> Floats:
    """Shares from recorded counts (layers, experts).

    Every count is raised by one (Laplace's rule of succession): an expert that the recording never saw may still
    be chosen.
    """
    return _shares(np.asarray(counts, dtype=np.float64) + 1.0)


def drift(popularity: Floats, rho: float, rng: np.random.Generator) -> Floats:
    """Popularity at another time, whose log-load has correlation `rho` with this one and the same spread.

        log p' = m + rho (log p - m) + sqrt(1 - rho^2) s z,    z ~ N(0, 1)

    with m, s the mean and standard deviation of log p over the experts of a layer. Backwards it gives the stale
    load that a placement was computed from; repeated k times it is a stationary walk with correlation rho^k.
    """
    log_load = np.log(popularity)
    mean = log_load.mean(axis=1, keepdims=True)
    spread = log_load.std(axis=1, keepdims=True)
    noise = rng.standard_normal(popularity.shape)
    return _shares(np.exp(mean + rho * (log_load - mean) + np.sqrt(1.0 - rho * rho) * spread * noise))


def mean_rho(rho_per_interval: float, intervals: int) -> float:
    """Mean correlation over the life of a placement that is recomputed every `intervals` intervals.

    The load drifts by one `drift` step per interval, so its age k = 0 .. n - 1 has correlation rho^k, on average
    (1 - rho^n) / (n (1 - rho)).
    """
    if rho_per_interval == 1.0:
        return 1.0
    return (1.0 - rho_per_interval**intervals) / (intervals * (1.0 - rho_per_interval))


def selection_probability(popularity: Floats, top_k: int) -> Floats:
    """Chance that a token chooses each expert: top_k x share, at most 1, summing to `top_k`.

    A token takes an expert at most once, so no expert draws more than 1 / top_k of the pairs; what a hotter one
    would have drawn goes to the others in proportion.
    """
    certain = np.zeros(popularity.shape, dtype=bool)
    while True:
        free = np.where(certain, 0.0, popularity)
        left = top_k - certain.sum(axis=1, keepdims=True)
        chance = np.where(certain, 1.0, free * (left / free.sum(axis=1, keepdims=True)))
        over = chance > 1.0
        if not over.any():
            return chance
        certain |= over


def _shares(weight: Floats) -> Floats:
    """Scaled to sum 1 over the experts of each layer."""
    shares: Floats = weight / weight.sum(axis=1, keepdims=True)
    return shares
