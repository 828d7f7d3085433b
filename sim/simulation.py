"""A scenario -> its result: the rooms of the house, put together once."""

from collections.abc import Iterator
from math import inf
from pathlib import Path

from sim.catalog.profiles import shipped_profiles
from sim.cluster.ledger import Progress
from sim.cluster.life_plan import operated
from sim.cluster.plan import cluster_plan
from sim.cluster.run import run_cluster
from sim.cluster.setup import ClusterPlan
from sim.deployment.notes import scenario_notes
from sim.deployment.plan import Deployment, deploy
from sim.deployment.room import check_room, check_warmup
from sim.price import price
from sim.result import Result
from sim.result.books import Books, books
from sim.result.expected_error import expected_error
from sim.result.notes import handover_notes
from sim.result.sample import doublings
from sim.result.summary_books import SummaryBooks
from sim.scenario.schema import Scenario
from sim.step.pricing import check_backends, pool_step_cost
from sim.step.stand_ins import pricing_notes
from sim.workload import incoming
from sim.workload.shares import APART


def simulate(
    scenario: Scenario, seed: int = 0, base_folder: Path | None = None, progress: Progress | None = None
) -> Result:
    """Run a scenario to its end.

    The same scenario and seed give the same result, in every process. `base_folder` is where relative file names of
    the scenario start; `progress` is told how many requests have left, of all (of those counted so far, before the
    first is served).

    Raises:
        DeploymentError: if the deployment does not fit the machine, or has no room for a single request, or the
            workload does not exist.
        ScenarioError: if a file that the scenario names is broken.

    Of a fleet, half the sample is simulated as well, but where the router minds no loads: what that changes tells what
    the sample's size may matter, and is in every interval.
    """
    result, fleet = _run(scenario, seed, base_folder, progress), scenario.fleet
    if fleet and fleet.sample < fleet.replicas and scenario.router not in APART:
        if fleet.sample == 1:
            result.without_intervals()
        else:
            fewer = fleet.model_copy(update={"simulated": fleet.sample // 2})
            half = _run(scenario.model_copy(update={"fleet": fewer}), seed, base_folder, None)
            result.beside_half(half, doublings(fleet.replicas, fleet.sample))
    return result


def _run(scenario: Scenario, seed: int, base_folder: Path | None, progress: Progress | None) -> Result:
    deployment = deploy(scenario, shipped_profiles())
    check_backends(deployment)
    stream = incoming(scenario, seed, base_folder, progress)
    check_room(deployment, stream.least_tokens)
    check_warmup(scenario, stream.last_arrival_s)
    costs = {role: pool_step_cost(deployment, role) for role in deployment.pools}
    plan = cluster_plan(deployment, seed, stream.block_tokens)
    plan = operated(plan, scenario, deployment, seed, base_folder)
    limits = (deployment.model.max_positions, *(pool.longest_tokens for pool in plan.pools.values()))
    kept = SummaryBooks(scenario, limits) if scenario.metrics == "summary" else None
    record = run_cluster(scenario, stream, plan, costs, seed, progress, kept)
    known = books(record)
    notes = (
        *deployment.model.notes,
        *scenario_notes(scenario),
        *stream.notes,
        *pricing_notes(deployment),
        *_rejections(known, deployment, plan),
        *handover_notes(record, known, plan.handover),
    )
    anchor = None if deployment.anchor is None else deployment.anchor.json()
    paid = deploy(scenario.whole_fleet()) if scenario.fleet else deployment
    return Result(record, price(record, paid), notes, expected_error(deployment), anchor)


def _rejections(requests: Books, deployment: Deployment, plan: ClusterPlan) -> Iterator[str]:
    """Says for each limit how many requests exceed it. A request may exceed several."""
    model, came = deployment.model, requests.beyond(-inf, inf)[0]
    if count := requests.beyond(model.max_positions, inf)[0]:
        yield (
            f"{count:,} of {came:,} requests rejected: prompt and answer exceed the "
            f"{model.max_positions:,} positions of {model.name}"
        )
    for role, pool in plan.pools.items():
        room = pool.longest_tokens
        count, longest = requests.beyond(room, model.max_positions)
        if count:
            beside = pool.kv_blocks < deployment.pools[role].memory.kv_blocks
            yield (
                f"{count:,} of {came:,} requests rejected: they need up to {longest:,} "
                f"KV tokens, a rank of the {role} pool has {room:,}{' beside the prefix cache' * beside}"
            )
