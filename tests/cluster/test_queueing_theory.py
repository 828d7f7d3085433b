"""With batch 1 the cluster is a textbook queue: mean waits against their closed forms.

rho = arrival rate x mean service / servers. Mean waits before service, in mean services (Kleinrock, Queueing Systems
I, 1975): M/M/1 rho / (1 - rho); M/D/1 half of it; M/M/c C(c, c rho) / (c (1 - rho)) with Erlang's C.
"""

import math

import numpy as np
import pytest
from cluster_costs import LinearStepCost, columns
from cluster_scenario import scenario
from scipy import stats

from sim.cluster.run import run_cluster
from sim.cluster.setup import ClusterPlan, PoolSetup, TransferSetup

REQUESTS = 18_000
WARM_UP = 1_800
BATCHES = 30
STEP_S = 0.001


class Service(LinearStepCost):
    """A step takes a time drawn for it: prefill steps from `draws`, decode steps STEP_S."""

    def __init__(self, draws=None):
        super().__init__(base_s=STEP_S, sequence_s=0.0, kv_s=0.0)
        self._draws = iter(draws) if draws is not None else None

    def prefill_s(self, load):
        return float(next(self._draws)) if self._draws else 1e-12


def erlang_c(servers, load):
    """Chance to wait in M/M/c: (load^c / c!) / ((1 - rho) sum_{k<c} load^k / k! + load^c / c!), load = c rho."""
    last = load**servers / math.factorial(servers)
    idle = (1 - load / servers) * sum(load**k / math.factorial(k) for k in range(servers))
    return last / (idle + last)


def mean_with_interval(waits):
    """Batch means and half of their 99.9% confidence interval."""
    means = waits[WARM_UP:].reshape(BATCHES, -1).mean(axis=1)
    return means.mean(), stats.t.ppf(0.9995, BATCHES - 1) * means.std(ddof=1) / math.sqrt(BATCHES)


def assert_wait(waits, expected):
    mean, half = mean_with_interval(waits)
    assert half < 0.3 * expected, "the run is too short to tell anything"
    assert abs(mean - expected) < half


def pool(**given):
    base = {"workers": 1, "gpus": 1, "dp": 1, "max_sequences": 1, "chunk_tokens": 1, "kv_blocks": 10**9}
    return PoolSetup(**{**base, **given})


def arrivals(rng, rate_per_s):
    return np.cumsum(rng.exponential(1 / rate_per_s, REQUESTS))


@pytest.mark.parametrize(("role", "rho"), [("prefill", 0.5), ("serve", 0.7)])
def test_one_server_with_exponential_service_is_m_m_1(role, rho):
    """A one-token prompt fills a step of its own, whose seconds are drawn; one output token ends the request."""
    rng = np.random.default_rng(5)
    requests = columns(arrivals(rng, rho), 1, 1)
    drawn = Service(rng.exponential(1.0, REQUESTS))
    if role == "serve":
        plan, costs = ClusterPlan({"serve": pool()}), {"serve": drawn}
    else:
        plan = ClusterPlan({"prefill": pool(), "decode": pool()}, TransferSetup(0.0, 1.0, 0.0))
        costs = {"prefill": drawn, "decode": Service()}
    table = run_cluster(scenario(roles=tuple(plan.pools)), requests, plan, costs, seed=0).requests
    assert_wait(table.prefill_start_s - table.arrival_s, rho / (1 - rho))


def decode_waits(rng, servers, rho, steps):
    """Waits for a seat on `servers` decode workers of one sequence each; prompts and transfer take no time.

    Service is `steps` decode steps of STEP_S; the first token leaves when the seat is taken.
    """
    mean_service_s = steps.mean() * STEP_S
    requests = columns(arrivals(rng, rho * servers / mean_service_s), 1, steps + 1)
    plan = ClusterPlan({"prefill": pool(dp=8), "decode": pool(workers=servers)}, TransferSetup(0.0, 1.0, 0.0))
    costs = {"prefill": Service(), "decode": Service()}
    table = run_cluster(scenario(), requests, plan, costs, seed=0).requests
    return (table.first_token_s - table.arrival_s) / mean_service_s


def test_one_server_with_constant_service_is_m_d_1():
    rng, rho = np.random.default_rng(6), 0.7
    waits = decode_waits(rng, 1, rho, np.full(REQUESTS, 1000))
    assert_wait(waits, rho / (2 * (1 - rho)))


@pytest.mark.parametrize(("servers", "rho"), [(2, 0.6), (4, 0.7)])
def test_several_workers_behind_one_queue_are_m_m_c(servers, rho):
    """Exponential service as many short steps: 1,000 on average, which rounds it by 0.1%."""
    rng = np.random.default_rng(7)
    steps = np.maximum(1, np.rint(rng.exponential(1000.0, REQUESTS))).astype(int)
    waits = decode_waits(rng, servers, rho, steps)
    assert_wait(waits, erlang_c(servers, servers * rho) / (servers * (1 - rho)))


def test_erlang_c_by_hand():
    """c = 1 gives rho; c = 2, load 1: (1/2) / (1/2 (1 + 1) + 1/2) = 1/3."""
    assert erlang_c(1, 0.6) == pytest.approx(0.6)
    assert erlang_c(2, 1.0) == pytest.approx(1 / 3)


def shortest_queue_waits(arrival_s, service_s, servers):
    """Waits where each job joins the shortest of several queues, the job in service counted, the first of equals.

    Service times are handed out as services begin, like the steps of a run.
    """
    service = iter(service_s)
    queues = [[] for _ in range(servers)]
    ends_s = [math.inf] * servers
    begins_s = np.empty(len(arrival_s))

    def begin(server, now_s):
        begins_s[queues[server][0]] = now_s
        ends_s[server] = now_s + next(service)

    def leave(until_s):
        while (now_s := min(ends_s)) <= until_s and now_s < math.inf:
            server = ends_s.index(now_s)
            queues[server].pop(0)
            ends_s[server] = math.inf
            if queues[server]:
                begin(server, now_s)

    for job, now_s in enumerate(arrival_s):
        leave(now_s)
        lengths = [len(queue) for queue in queues]
        server = lengths.index(min(lengths))
        queues[server].append(job)
        if len(queues[server]) == 1:
            begin(server, now_s)
    leave(math.inf)
    return begins_s - arrival_s


@pytest.mark.parametrize("role", ["prefill", "serve"])
@pytest.mark.parametrize(("servers", "rho"), [(2, 0.6), (4, 0.8)])
def test_workers_behind_a_least_loaded_router_are_m_m_c_with_the_shortest_queue(role, servers, rho):
    """Job by job as the shortest queue; its mean wait lies between M/M/c, which never leaves a worker idle while
    another has a queue, and M/M/1, which chance alone gives each worker."""
    rng = np.random.default_rng(8)
    requests, draws = columns(arrivals(rng, rho * servers), 1, 1), rng.exponential(1.0, REQUESTS)
    plan = ClusterPlan({"serve": pool(workers=servers)})
    if role == "prefill":
        pools = {"prefill": pool(workers=servers), "decode": pool()}
        plan = ClusterPlan(pools, TransferSetup(0.0, 1.0, 0.0))
    costs = {role: Service(draws)} | ({"decode": Service()} if role == "prefill" else {})
    table = run_cluster(scenario(roles=tuple(plan.pools)), requests, plan, costs, seed=0).requests
    waits = table.prefill_start_s - table.arrival_s
    np.testing.assert_allclose(waits, shortest_queue_waits(requests.arrival_s, draws, servers), atol=1e-9)
    mean, half = mean_with_interval(waits)
    assert mean + half > erlang_c(servers, servers * rho) / (servers * (1 - rho))
    assert mean < 0.8 * rho / (1 - rho)


@pytest.mark.parametrize("router", ["least_loaded", "prefix_aware", "round_robin"])
@pytest.mark.parametrize("dp", [1, 4])
@pytest.mark.parametrize("role", ["prefill", "serve"])
def test_a_request_goes_to_an_idle_worker_while_there_is_one(role, dp, router):
    """Eight workers, a prompt every tenth of a second that takes one: none waits, on whichever rank the others are."""
    requests = columns(np.arange(8) * 0.1, 100, 1)
    shared = {"workers": 8, "dp": dp, "chunk_tokens": 100, "max_sequences": 9}
    plan = ClusterPlan({"serve": pool(**shared)})
    if role == "prefill":
        plan = ClusterPlan({"prefill": pool(**shared), "decode": pool()}, TransferSetup(0.0, 1.0, 0.0))
    costs = {role: Service([1.0] * 8) for role in plan.pools}
    table = run_cluster(scenario(router, roles=tuple(plan.pools)), requests, plan, costs, seed=0).requests
    np.testing.assert_array_equal(table.prefill_start_s, table.arrival_s)


def test_an_idle_rank_waits_for_the_step_of_its_worker():
    """Two prefill workers of two ranks. Prompts of 10, 8,000 and 10 tokens take the first rank of worker 0, that of
    worker 1 and, the third after the first is done, worker 0 again: not the rank of worker 1 that has nothing to do
    but must wait for the step. With a fourth of 8,000 tokens there, a fifth goes where the step ends first."""
    requests = columns([0.0, 0.1, 0.2, 0.3, 0.4], [10, 8000, 10, 4000, 10], 1)
    shared = pool(workers=2, dp=2, chunk_tokens=8000)
    plan = ClusterPlan({"prefill": shared, "decode": pool()}, TransferSetup(0.0, 1.0, 0.0))
    linear = LinearStepCost(prompt_base_s=0.0, token_s=0.001, pair_s=0.0)
    table = run_cluster(scenario(), requests, plan, {"prefill": linear, "decode": Service()}, seed=0).requests
    assert table.prefill_end_s == pytest.approx([0.01, 8.1, 0.21, 4.3, 4.31])


@pytest.mark.parametrize("role", ["decode", "serve"])
def test_a_worker_that_decodes_does_not_look_idle(role):
    """Two workers of two ranks. The first two requests are short, the third, long, joins the first beside; when both
    short ones are done, the fourth goes to worker 1, which rests, although the first rank of worker 0 has nothing."""
    together = []

    class Watched(LinearStepCost):
        def line(self, fullest, mean):
            together.append(mean * 2)
            return super().line(fullest, mean)

    both = pool(workers=2, dp=2, max_sequences=9)
    plan = ClusterPlan({"serve": both})
    if role == "decode":
        plan = ClusterPlan({"prefill": pool(), "decode": both}, TransferSetup(0.0, 1.0, 0.0))
    requests = columns([0.0, 0.01, 0.02, 0.5], 1, [100, 100, 1000, 100])
    free = {"prompt_base_s": 0.0, "token_s": 0.0, "pair_s": 0.0}
    costs = {role: Watched(base_s=STEP_S, sequence_s=0.0, kv_s=0.0, **free) for role in plan.pools}
    run_cluster(scenario(roles=tuple(plan.pools)), requests, plan, costs, seed=0)
    assert together.count(2) == 1, "the first and the third"
