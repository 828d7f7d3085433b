"""Records of runs whose price can be worked out by hand."""

from typing import Any

import numpy as np

from sim.cluster.record import PoolRecord, RequestTable, RunRecord
from sim.deployment.plan import resolve
from sim.price import RunPrice
from sim.price import price as price_of
from sim.scenario.schema import Scenario


def requests(
    input_tokens: list[int], cached: list[int], output: list[int], finished: list[bool]
) -> RequestTable:
    n = len(input_tokens)
    done = np.array(finished)
    times = np.where(done, 1.0, np.nan)
    zeros = np.zeros(n, dtype=np.int64)
    return RequestTable(
        arrival_s=np.zeros(n),
        input_tokens=np.array(input_tokens),
        cached_tokens=np.array(cached),
        cached_host_tokens=zeros,
        cached_disk_tokens=zeros,
        output_tokens=np.array(output),
        prefill_start_s=times,
        blocked_s=times - times,
        prefill_end_s=times,
        placed_s=times,
        received_s=times,
        first_token_s=times,
        finish_s=times,
        preemptions=zeros,
        recomputed_tokens=zeros,
        generated_tokens=np.where(done, np.array(output), 0),
        rejected=~done,
    )


def record(
    pools: dict[str, PoolRecord], table: RequestTable, end_s: float = 3600.0, **changes: Any
) -> RunRecord:
    pool = {"gpus": 8, "ep": 8}
    serve = "serve" in pools
    scenario = Scenario.model_validate(
        {
            "model": "deepseek-v3.2",
            "gpu": "h200",
            "deployment": {"serve": pool} if serve else {"prefill": pool, "decode": pool},
            "workload": {
                "arrivals": {"all_at_once": {}},
                "lengths": {"input": {"constant": 1}, "output": {"constant": 1}},
                "requests": 1,
            },
            "price": {"usd_per_gpu_hour": 2.0, "overhead_fraction": 0.0},
        }
        | changes
    )
    return RunRecord(scenario, 0, table, pools, (0.0, end_s), end_s, 0, 0.0, {})


def price(run: RunRecord) -> RunPrice:
    return price_of(run, resolve(run.scenario))


SPLIT = {
    "prefill": PoolRecord(gpus=16, busy_gpu_s={"prefill": 9000.0, "cached": 1000.0}),
    "decode": PoolRecord(gpus=48, busy_gpu_s={"decode": 86_400.0}),
}
SERVED = requests([30_000_000, 20_000_000], [8_000_000, 12_000_000], [3_000_000, 5_000_000], [True, True])
