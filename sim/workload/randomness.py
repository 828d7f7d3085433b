"""Random numbers by purpose: drawing more of one thing never reshuffles another."""

import numpy as np


def generator(seed: int, purpose: str) -> np.random.Generator:
    """The random stream of one purpose, such as `arrivals`, in a run of `seed`.

    Streams of different purposes are independent, and the same in every process: the key is the text itself,
    not Python's `hash`, which changes from one process to the next.
    """
    return np.random.default_rng(np.random.SeedSequence([seed, *purpose.encode()]))
