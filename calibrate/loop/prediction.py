"""The simulated side: a scenario's requests through `sim.cluster`, with fitted steps."""

from collections.abc import Mapping, Sequence
from typing import Any

from calibrate.loop.served import Served
from calibrate.loop.settings import Load, Settings
from calibrate.loop.steps import FittedStepCost
from sim.cluster.run import run_cluster
from sim.cluster.setup import ClusterPlan, PoolSetup
from sim.scenario.schema import Scenario
from sim.serving.admission import AdmissionRules
from sim.serving.speculation import DraftAcceptance, OneTokenPerStep
from sim.workload import requests
from sim.workload.stream import RequestStream

SEED = 3
"""Of arrivals and lengths, and of the simulated luck of drafts."""


def scenario(told: Settings, count: int, arrivals: Mapping[str, Any]) -> Scenario:
    """The service as a scenario: so many requests. What stands for GPU and precision, nobody asks for."""
    return Scenario.model_validate(
        {
            "model": told.model["name"],
            "gpu": "this device",
            "deployment": {"serve": {"gpus": 1}},
            "workload": {
                "arrivals": arrivals,
                "lengths": {key: {"uniform": list(ends)} for key, ends in told.workload.items()},
                "requests": count,
            },
        }
    )


def at_rate(told: Settings, load: Load, capacity_per_s: float) -> Scenario:
    """The scenario of a load."""
    return scenario(told, load.requests, {"poisson": {"rate_per_s": load.rate * capacity_per_s}})


def stream_of(asked: Scenario) -> RequestStream:
    """Its requests: the same ones each time."""
    return requests(asked, SEED)


def predict(told: Settings, asked: Scenario, cost: FittedStepCost, acceptance: Sequence[float]) -> Served:
    """Simulate a scenario on the engine's limits. `acceptance`: of each draft, none without drafts."""
    most = told.engine
    pool = PoolSetup(
        workers=1, gpus=1, dp=1, max_sequences=most["sequences"], chunk_tokens=most["tokens"],
        kv_blocks=most["blocks"], block_tokens=most["block_tokens"], mixed=True,
    )  # fmt: skip
    plan = ClusterPlan(
        {"serve": pool},
        rules=AdmissionRules(tokens_per_sequence=1 + len(acceptance)),
        speculation=DraftAcceptance(acceptance, SEED) if acceptance else OneTokenPerStep(),
    )
    table = run_cluster(asked, stream_of(asked), plan, {"serve": cost}, SEED).requests
    return Served(table.arrival_s, table.first_token_s, table.finish_s, table.output_tokens)


def capacity_per_s(told: Settings, cost: FittedStepCost) -> float:
    """Requests per second when as many as the largest load has come at once."""
    count = max(load.requests for load in told.loads.values())
    served = predict(told, scenario(told, count, {"all_at_once": {}}), cost, ())
    return float(count / served.finish_s.max())
