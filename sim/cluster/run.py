"""One run: a cluster, its requests, and the record that remains."""

import gc
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from sim.cluster.aggregated import AggregatedCluster
from sim.cluster.arrivals import ArrivalProcess
from sim.cluster.clock import Clock
from sim.cluster.disaggregated import DisaggregatedCluster
from sim.cluster.ledger import Ledger, Progress
from sim.cluster.life import Life
from sim.cluster.life_record import LifeRecord
from sim.cluster.mortal import MortalAggregated, MortalDisaggregated
from sim.cluster.record import PoolRecord, RequestSummary, RunRecord
from sim.cluster.retries import RetryLedger
from sim.cluster.setup import ClusterPlan, Requests
from sim.cluster.window import Window, is_steady, whole_run
from sim.scenario.schema import Scenario
from sim.step import StepCost


def run_cluster(
    scenario: Scenario,
    requests: Requests,
    plan: ClusterPlan,
    costs: Mapping[str, StepCost],
    seed: int,
    progress: Progress | None = None,
    summary: RequestSummary | None = None,
) -> RunRecord:
    """Serve all requests, and tell what happened.

    `plan.pools` and `costs` have the same roles; each pool needs a cost object of its own. The scenario gives the
    router and the warm-up; `seed` is only recorded, since all chance is drawn in `requests` and `plan.speculation`.
    `summary` takes what is to be known of the requests where they are to have no rows.

    Raises:
        LookupError: if the router does not exist.
    """
    started = time.perf_counter()
    clock, ledger = Clock(), _ledger(plan, len(requests), progress, summary)
    window = Window(scenario.warmup_s)
    if requests.concurrency is None:
        last_s = requests.known_until_s
        window.end_s = last_s if last_s > window.start_s else math.inf
    if summary is not None:
        summary.measure(lambda: (window.start_s, window.end_s))
    arrivals = ArrivalProcess(clock, ledger, requests, plan.rules.ingress_s, window)
    with _no_garbage():
        cluster, life = _cluster(plan, clock, ledger, costs, scenario.router, window)
        arrivals.start(cluster)
        if life:
            life.start()
        clock.run()
    end_s = ledger.end_s if ledger.completed else clock.now
    table = ledger.close(end_s)
    known = table if summary is None else summary
    measured_s = (window.start_s, max(window.start_s, min(window.end_s, end_s)))
    window.steady = is_steady(known, measured_s)
    if not window.steady:
        measured_s = whole_run(known, window.start_s, end_s)
    if summary is not None:
        summary.close(measured_s, window.steady, end_s)
    lived = life.record(end_s) if life else None
    pools = cluster.records()
    if lived:
        pools = {
            role: replace(
                pool, busy_in_window_s=pool.busy_in_window_s * _staff(plan, lived, role, measured_s)
            )
            for role, pool in pools.items()
        }
    if measured_s[0] == measured_s[1]:  # nothing is measured, whatever ran after the warm-up
        pools = {role: replace(pool, busy_in_window_s=0.0) for role, pool in pools.items()}
    return RunRecord(
        scenario=scenario,
        seed=seed,
        requests=table,
        pools=pools,
        window_s=measured_s,
        end_s=end_s,
        events=clock.events,
        wall_s=time.perf_counter() - started,
        priced_gpu_s=_by_source(pools, costs),
        steady=window.steady,
        invariants=cluster.unsound(),
        life=lived,
        summary=summary,
    )


def _ledger(
    plan: ClusterPlan, expected: int, progress: Progress | None, summary: RequestSummary | None
) -> Ledger:
    if plan.life is None:
        return Ledger(expected, progress, summary)
    keeps_prefix = bool(plan.life.failing and plan.life.failing.keeps_prefix)
    return RetryLedger(expected, progress, keeps_prefix, summary)


def _cluster(
    plan: ClusterPlan, clock: Clock, ledger: Ledger, costs: Mapping[str, StepCost], router: str, window: Window
) -> tuple[AggregatedCluster | DisaggregatedCluster, Life | None]:  # fmt: skip
    """The cluster, and the life of its workers where they come and go."""
    together = "serve" in plan.pools
    if plan.life is None:
        kind = AggregatedCluster if together else DisaggregatedCluster
        return kind(clock, ledger, plan, costs, router, window), None
    assert isinstance(ledger, RetryLedger)
    mortal = (MortalAggregated if together else MortalDisaggregated)(
        clock, ledger, plan, costs, router, window
    )
    return mortal, Life(plan.life, clock, ledger, plan.pools, mortal)


def _staff(plan: ClusterPlan, life: LifeRecord, role: str, window_s: tuple[float, float]) -> float:
    """Workers that there can be, over those that served on average."""
    served = life.serving(role).mean(*window_s)
    return plan.pools[role].workers / served if served else 0.0


@contextmanager
def _no_garbage() -> Iterator[None]:
    """Without the search for cycles: a run leaves none behind, and the more is in flight the longer it takes."""
    searching = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if searching:
            gc.enable()


def _by_source(pools: Mapping[str, PoolRecord], costs: Mapping[str, StepCost]) -> dict[str, float]:
    """Busy GPU seconds by the source that priced them: each pool's busy time in the shares of its cost object."""
    total: dict[str, float] = {}
    for role, pool in pools.items():
        seconds = costs[role].provenance_s()
        handed_out = sum(seconds.values())
        busy_gpu_s = sum(pool.busy_gpu_s.values())
        for source, s in seconds.items():
            total[source] = total.get(source, 0.0) + (busy_gpu_s * s / handed_out if handed_out else 0.0)
    return total
