"""A run of four requests, small enough to reckon by hand, for the tests of this folder."""

from typing import Any

import numpy as np

from sim.cluster.record import PoolRecord, RequestTable, RunRecord
from sim.scenario.schema import Scenario

NEVER = float("nan")


def scenario(**changes: Any) -> Scenario:
    """Two pools of 8 and 16 GPUs under Poisson arrivals."""
    lengths = {"input": {"constant": 100}, "output": {"constant": 11}}
    form: dict[str, Any] = {
        "model": "deepseek-v3.2",
        "gpu": "h200_sxm",
        "deployment": {"prefill": {"gpus": 8, "ep": 8}, "decode": {"gpus": 16, "ep": 16}},
        "workload": {"arrivals": {"poisson": {"rate_per_s": 1.0}}, "lengths": lengths, "requests": 4},
    }
    return Scenario.model_validate(form | changes)


def small_run(**changes: Any) -> RunRecord:
    """Requests 0 to 2 are served, request 3 is rejected. The window is 10 s to 20 s.

    | request | arrives | prompt (cached) | prefill | first | finish | tokens |
    |---------|---------|-----------------|---------|-------|--------|--------|
    | 0       | 2       | 1000 (0)        | 4-8     | 9     | 19     | 11     |
    | 1       | 10      | 600 (200)       | 10-12   | 13    | 13     | 1      |
    | 2       | 14      | 300 (100)       | 16-22   | 23    | 27     | 5      |
    | 3       | 20      | 900 (0)         | -       | -     | -      | 7      |

    Request 2 was preempted once: 30 tokens computed again. Of the waits before prefill, 0.5, 0 and 1.5 s were for room.
    Places on a decode rank came at 8, 12.25 and 22.5 s, the KV was there at 8.5, 12.75 and 22.75 s.
    """
    table = RequestTable(
        arrival_s=np.array([2.0, 10.0, 14.0, 20.0]),
        input_tokens=np.array([1000, 600, 300, 900]),
        cached_tokens=np.array([0, 200, 100, 0]),
        cached_host_tokens=np.array([0, 50, 0, 0]),
        cached_disk_tokens=np.array([0, 30, 10, 0]),
        output_tokens=np.array([11, 1, 5, 7]),
        prefill_start_s=np.array([4.0, 10.0, 16.0, NEVER]),
        blocked_s=np.array([0.5, 0.0, 1.5, NEVER]),
        prefill_end_s=np.array([8.0, 12.0, 22.0, NEVER]),
        placed_s=np.array([8.0, 12.25, 22.5, NEVER]),
        received_s=np.array([8.5, 12.75, 22.75, NEVER]),
        first_token_s=np.array([9.0, 13.0, 23.0, NEVER]),
        finish_s=np.array([19.0, 13.0, 27.0, NEVER]),
        preemptions=np.array([0, 0, 1, 0]),
        recomputed_tokens=np.array([0, 0, 30, 0]),
        generated_tokens=np.array([11, 1, 5, 0]),
        rejected=np.array([False, False, False, True]),
    )
    pools = {
        "prefill": PoolRecord(
            gpus=8,
            busy_gpu_s={"prefill": 90.0, "cached": 6.0},
            busy_in_window_s=6.0,
            new_tokens=1630,  # 1000 + 400 + 200, and 30 again
            kv_cache_peak=0.25,
        ),
        "decode": PoolRecord(gpus=16, busy_gpu_s={"decode": 224.0}, busy_in_window_s=9.0, kv_cache_peak=0.5),
    }
    record: dict[str, Any] = {
        "scenario": scenario(warmup_s=10.0),
        "seed": 7,
        "requests": table,
        "pools": pools,
        "window_s": (10.0, 20.0),
        "end_s": 27.0,
        "events": 42,
        "wall_s": 0.5,
        "priced_gpu_s": {"measured": 240.0, "analytic": 80.0},
    }
    return RunRecord(**(record | changes))
