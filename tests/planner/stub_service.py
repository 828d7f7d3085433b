"""A service of formulas in the place of estimate and simulation: what the planner makes of it can be computed by hand.

A worker of g GPUs of an H200 is full at g / 2 requests per second (B200: g), with load u = rate / capacity:

    mean TTFT 0.1 s      TTFT p99 0.2 s / (1 - u)      mean TPOT 10 ms      TPOT p99 20 ms x (1 + u)

More than one expert-parallel rank makes TPOT half as long; a prefill or a decode worker is full at twice the rate.
"""

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from sim.planner import full, holding, search, sensitivity
from sim.planner.holding import HoldJob, Simulated
from sim.planner.margin import Margin
from sim.planner.screening import Part, PartJob, Screened
from sim.price import GpuHour

USD = {"h200_sxm": 2.0, "b200_sxm": 3.5}
SPEED = {"h200_sxm": 0.5, "b200_sxm": 1.0}
TOKENS, OUTPUT = 1200.0, 200.0


def capacity(setting: Mapping[str, Any], role: str, gpus: int) -> float:
    return gpus * SPEED[setting["gpu"]] * (1 if role == "serve" else 2)


def estimate(job: PartJob) -> Part:
    """The means, which no queue lengthens."""
    most = capacity(job.setting, job.role, job.shape["gpus"])
    tpot_s = 0.01 / (2 if job.shape["ep"] > 1 else 1)
    return Part(
        rates=(0.01 * most, 0.5 * most, most),
        ttft_s=(0.1, 0.1, 0.1),
        tpot_s=(tpot_s, tpot_s, tpot_s),
        batch=(1.0, 8.0, 16.0),
        limit="decode batch",
        output_tokens=OUTPUT,
        tokens=TOKENS,
        usd_per_gpu_hour=USD[job.setting["gpu"]],
        gpu_hour=GpuHour(USD[job.setting["gpu"]], "rent_3yr", "2026-07", "a survey", 8),
        unit_gpus=8,
    )


def measured(screened: Screened, rate: float, replicas: int = 1) -> Simulated:
    """The percentiles at a rate of so many replicas together."""
    load = rate / replicas / screened.capacity
    last = screened.candidate.pools.get("decode") or screened.candidate.pools["serve"]
    tpot_s = 0.02 * (1 + load) / (2 if last["ep"] > 1 else 1)
    ttft_s = 0.2 / (1 - load) if load < 1 else float("inf")
    usd = replicas * screened.candidate.gpus * USD[screened.candidate.setting["gpu"]]
    per_million = usd / 3600 / rate / TOKENS * 1e6
    latency = {
        name: {"mean": s, "p50": s, "p90": s, "p99": s} for name, s in (("ttft_s", 0.1), ("tpot_s", tpot_s))
    }
    return Simulated(
        rate,
        {"ttft_p99_s": ttft_s, "tpot_p99_s": tpot_s},
        keeps_up=load < 1,
        requests=1000,
        replicas=replicas,
        data={
            "cost": {"usd_per_hour": usd, "usd_per_gpu_hour": USD[screened.candidate.setting["gpu"]],
                     "usd_per_million": {"input_cache_hit": None, "input_cache_miss": per_million,
                                         "output": per_million, "blended": per_million}},
            "latency": latency,
            "utilization": dict.fromkeys(screened.candidate.pools, load),
            "priced_by": {"measured": 1.0},
            "tokens": {"input": 1000, "input_cached": 0, "output": 200},
            "requests": {"completed": 1},
        },
    )  # fmt: skip


Ask = Callable[..., dict[str, Any]]


def stub(monkeypatch: pytest.MonkeyPatch, errors: float = 0.0) -> None:
    """Let the planner ask the formulas; `errors`: expected of every metric."""

    def hold_measure(job: HoldJob, rate: float) -> Simulated:
        return measured(job.screened, rate)

    def at_full_traffic(job: full.FullJob) -> tuple[Simulated, float]:
        return measured(job.screened, job.more * job.traffic.peak_per_s, job.replicas), 1.0

    margin = Margin(dict.fromkeys(("ttft", "tpot", "throughput"), errors), None)
    monkeypatch.setattr(search, "estimate", estimate)
    monkeypatch.setattr(sensitivity, "estimate", estimate)
    monkeypatch.setattr(search, "margin_of", lambda scenario: margin)
    monkeypatch.setattr(holding, "measure", hold_measure)
    monkeypatch.setattr(full, "at_full_traffic", at_full_traffic)
