"""Is there room for the requests of a workload? The last question to a deployment that exists, divides and fits."""

from sim.deployment.plan import Deployment
from sim.scenario.errors import DeploymentError, Problem
from sim.scenario.schema import Scenario


def running_blocks(deployment: Deployment) -> dict[str, int]:
    """KV blocks of a rank of each pool that running sequences may hold: all but what the prefix cache reserves."""
    cache = deployment.prefix_cache
    reserved = {cache.role: cache.reserved_blocks} if cache else {}
    return {role: plan.memory.kv_blocks - reserved.get(role, 0) for role, plan in deployment.pools.items()}


def check_warmup(scenario: Scenario, last_arrival_s: float | None) -> None:
    """Raises DeploymentError where all requests arrive in the warm-up; None: that is not known before the run."""
    if last_arrival_s is not None and 0 < scenario.warmup_s >= last_arrival_s:
        says = f"leaves nothing to measure: the last request arrives at {last_arrival_s:,.1f} s"
        raise DeploymentError([Problem(("warmup_s",), says)])


def check_room(deployment: Deployment, least_tokens: int | None) -> None:
    """Raises DeploymentError where not even the smallest request, of `least_tokens` with its answer, can be served.

    None: there are no requests.
    """
    if least_tokens is None:
        return
    asks = f"the smallest request of the workload has {least_tokens:,} tokens with its answer"
    model = deployment.model
    if least_tokens > model.max_positions:
        says = f"{asks}; {model.name} takes {model.max_positions:,}"
        raise DeploymentError([Problem(("workload",), says)])
    problems = []
    for role, blocks in running_blocks(deployment).items():
        memory = deployment.pools[role].memory
        needed = -(-least_tokens // memory.block_tokens) + memory.request_blocks
        if needed <= blocks:
            continue
        room = f"leaves each rank of {role} {blocks * memory.block_tokens:,} KV tokens for running sequences"
        if needed > memory.kv_blocks:
            problems.append(Problem(("deployment", role), f"{room}; {asks}"))
            continue
        cache = deployment.prefix_cache
        assert cache is not None
        most = (memory.kv_blocks - needed) * memory.block_tokens * cache.ranks
        problems.append(Problem(("prefix_cache", "hbm_tokens"), f"{room}; {asks}: expected at most {most:,}"))
    if problems:
        raise DeploymentError(problems)
