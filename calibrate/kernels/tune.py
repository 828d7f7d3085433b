"""Which of a handful of configurations of a Triton kernel is the fastest for a shape: tried once, outside timed calls.

Every point calls its kernel once to compare it with the reference before it is timed; that call tries them all, so
that all are compiled and one is chosen by then. Triton's own autotuner needs a GPU driver even in the interpreter.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from math import inf
from typing import Any, Final

import torch

Configurations = Sequence[Mapping[str, int]]

TRIALS: Final = 5
"""Calls between two events per configuration, after one that compiles it."""

_chosen: dict[Hashable, Mapping[str, int]] = {}


def launch(
    key: Hashable, configurations: Configurations, run: Callable[..., None], device: torch.device
) -> None:
    """Run with the configuration chosen for `key`, trying them first where none is; without a GPU the first one.

    A configuration that does not compile or launch (too much shared memory) is passed over. Raises what the last one
    raised where none runs.
    """
    if device.type == "cpu":
        run(**configurations[0])
        return
    if (key, device) not in _chosen:
        _chosen[key, device] = _fastest(configurations, run)
    run(**_chosen[key, device])


def _fastest(configurations: Configurations, run: Callable[..., None]) -> Mapping[str, int]:
    best, least_ms, failed = None, inf, None
    for configuration in configurations:
        try:
            took_ms = _milliseconds(run, configuration)
        except Exception as error:
            failed = error
            continue
        if took_ms < least_ms:
            best, least_ms = configuration, took_ms
    if best is None:
        raise failed or ValueError("no configuration to choose from")
    return best


def _milliseconds(run: Callable[..., None], configuration: Mapping[str, Any]) -> float:
    run(**configuration)
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    for _ in range(TRIALS):
        run(**configuration)
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end))
