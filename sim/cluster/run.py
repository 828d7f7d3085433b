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
from sim.cluster.record import PoolRecord, RunRecord
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
) -> RunRecord:
    """Serve all requests, and tell what happened.

    `plan.pools` and `costs` have the same roles; each pool needs a cost object of its own. The scenario gives the
    router and the warm-up; `seed` is only recorded, since all chance is drawn in `requests` and `plan.speculation`.

    Raises:
        LookupError: if the router does not exist.
    """
    started = time.perf_counter()
    clock, ledger = Clock(), Ledger(len(requests), progress)
    window = Window(scenario.warmup_s)
    if requests.concurrency is None:
        last_s = float(requests.arrival_s[-1]) if len(requests) else 0.0
        window.end_s = last_s if last_s > window.start_s else math.inf
    arrivals = ArrivalProcess(clock, ledger, requests, plan.rules.ingress_s, window)
    kind = AggregatedCluster if "serve" in plan.pools else DisaggregatedCluster
    with _no_garbage():
        cluster = kind(clock, ledger, plan, costs, scenario.router, window)
        arrivals.start(cluster)
        clock.run()
    end_s = ledger.end_s if ledger.completed else clock.now
    table = ledger.table()
    measured_s = (window.start_s, max(window.start_s, min(window.end_s, end_s)))
    window.steady = is_steady(table, measured_s)
    if not window.steady:
        measured_s = whole_run(table, window.start_s, end_s)
    pools = cluster.records()
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
    )


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
