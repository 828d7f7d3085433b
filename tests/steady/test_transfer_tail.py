"""What the KV cache's way to the decode pool adds to the first token in the steady state, by hand."""

from dataclasses import replace

import numpy as np
import pytest

from sim.cluster.plan import cluster_plan
from sim.cluster.setup import TransferSetup
from sim.deployment.plan import deploy
from sim.scenario.loading import parse
from sim.steady.demand import demand_of
from sim.steady.service import Service

SCENARIO = parse(
    """
model: deepseek-v3
gpu: h200_sxm
profile: analytic
deployment: {prefill: {gpus: 8, tp: 4, ep: 8}, decode: {gpus: 16, tp: 2, ep: 16}}
workload:
  arrivals: {poisson: {rate_per_s: 2}}
  lengths: {input: {constant: 3000}, output: {constant: 100}}
duration_s: 60
""",
    "transfer.yaml",
).scenario


@pytest.mark.parametrize(("tail", "adds_s"), [(1.0, 0.5 + 1.5), (0.25, 0.5 + 0.375)])
def test_what_overlaps_with_the_prompt_does_not_delay_the_first_token(tail: float, adds_s: float) -> None:
    # 3,000 tokens x 1,000 B over the NICs of the smaller rank, 2 GPUs x 1 MB/s = 1.5 s, and 0.5 s of handshake.
    deployment = deploy(SCENARIO)
    cluster = cluster_plan(deployment, seed=0)

    def first_tokens(transfer: TransferSetup) -> list[float]:
        given = replace(cluster, transfer=transfer)
        service = Service(deployment, demand_of(SCENARIO), given, SCENARIO.price)
        return service.at_rates(np.array([0.5, 1.0]))["ttft_s"].tolist()

    free = first_tokens(TransferSetup(0.0, 1e6, 0.0))
    assert first_tokens(TransferSetup(1000.0, 1e6, 0.5, tail)) == pytest.approx([t + adds_s for t in free])
