"""Several launch commands -> the pools of a service: which are nodes of one worker, which are workers of one pool."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sim.launch.arguments import Told
from sim.launch.derived import Derived, Noted, Role
from sim.launch.routers import RouterCommand
from sim.launch.words import fail
from sim.scenario.errors import KeyPath, dotted

POLICIES: Final = {
    **dict.fromkeys(("cache_aware", "kv", "kv_cache_aware"), "prefix_aware"),
    "round_robin": "round_robin",
    "random": "random",
    **dict.fromkeys(("power_of_two", "least_loaded", "load_balancing"), "least_loaded"),
}
"""Policies of the engines' routers and of Dynamo's front end, hyphens as underscores -> the scenario's."""


GRAPHS: Final[KeyPath] = ("scheduling", "cuda_graphs")
PROMPT_GRAPHS: Final[KeyPath] = ("scheduling", "prefill_graph_tokens")
OF_BOTH: Final[frozenset[KeyPath]] = frozenset(
    {GRAPHS, ("overlap", "two_batch"), ("scheduling", "poll_every_steps")}
)
"""Keys of both phases that a command says only where it departs from the engine's default."""
OF_PROMPTS: Final[frozenset[KeyPath]] = frozenset(
    {
        *(("prefix_cache", name) for name in ("enabled", "scope", "block_tokens", "host_gb", "disk_gb")),
        *(
            ("scheduling", name)
            for name in ("wait_all_ranks_steps", "gather_prompts_steps", "batch_wait_steps")
        ),
        *(("scheduling", name) for name in ("batch_wait_fill", "whole_prompts")),
        *(("indexer", name) for name in ("dense_threshold", "logits_gb")),
    }
)
"""Keys of how prompts are computed."""


@dataclass(frozen=True)
class PoolOf:
    """One pool: a command that stands for its workers, and how many there are."""

    derived: Derived
    workers: Noted


def gather(
    found: Sequence[Derived], routers: Sequence[RouterCommand], nodes: int | None
) -> dict[Role, PoolOf]:
    """The pools by role.

    Raises ScenarioError where the workers of one pool differ, or a side of a disaggregated service is missing.
    """
    by_role: dict[Role, list[Derived]] = {}
    for one in found:
        by_role.setdefault(one.role, []).append(one)
    if "serve" in by_role and len(by_role) > 1:
        serve = by_role["serve"][0]
        raise fail(
            serve.command.place, "this command says no side of a service whose other commands say theirs"
        )
    if len(by_role) == 1 and "serve" not in by_role:
        [role] = by_role
        missing = "decode" if role == "prefill" else "prefill"
        raise fail(
            by_role[role][0].command.place,
            f"a {role} worker alone serves nobody; the {missing} command is missing",
        )
    roles: tuple[Role, ...] = ("prefill", "decode", "serve")
    return {role: _pool(by_role[role], role, routers, nodes) for role in roles if role in by_role}


def _pool(
    members: Sequence[Derived], role: Role, routers: Sequence[RouterCommand], nodes: int | None
) -> PoolOf:
    first = members[0]
    for other in members[1:]:
        _alike(first, other)
    loose = sum(not one.worker for one in members)
    workers = loose + len({one.worker for one in members if one.worker})
    own = first.pool.get("workers")
    why = f"{workers} command{'s' if workers > 1 else ''}"
    if len(members) > workers:
        why = f"{len(members)} commands, one per node of {workers} worker{'s' if workers > 1 else ''}"
    if own is not None:
        workers, why = workers * own.value, own.why if workers == 1 else f"{why} x {own.why}"
    routed = [len({"prefill": r.prefills, "decode": r.decodes}.get(role, ())) for r in routers]
    if routed and max(routed) > workers:
        workers, why = max(routed), f"the router's addresses: {max(routed)} of {role}"
    gpus, gpu = first.pool["gpus"].value, first.machine.gpu
    if role == "serve" and nodes and nodes * gpu.gpus_per_node >= 2 * workers * gpus:
        workers = nodes * gpu.gpus_per_node // gpus
        why = f"--nodes {nodes}, with {gpu.gpus_per_node} GPUs each"
    return PoolOf(first, Noted(workers, why, first.command.place))


def _alike(first: Derived, other: Derived) -> None:
    """Workers of one pool are identical."""
    for key in {**first.pool, **other.pool}:
        mine, theirs = first.pool.get(key), other.pool.get(key)
        if (mine and mine.value) != (theirs and theirs.value):
            said = " and ".join(f"{one.value} ({one.why})" if one else "none" for one in (mine, theirs))
            place = theirs.place if theirs else other.command.place
            raise fail(place, f"{key} differs between workers of {first.role}: {said}; one pool has one kind")


def shared(pools: Mapping[Role, PoolOf]) -> tuple[dict[KeyPath, Noted], list[Told]]:
    """Keys of the whole scenario, and what the pools say differently: a scenario has one of each, that of the pool that
    decodes, or of the one that computes prompts where it is of prompts alone (`OF_PROMPTS`)."""
    prefill, decode = (pools[role].derived.keys if role in pools else {} for role in ("prefill", "decode"))
    keys = {**pools["serve"].derived.keys} if "serve" in pools else {**prefill, **decode}
    told: list[Told] = []
    for path in [path for path in keys if "serve" not in pools]:
        ours, theirs = (decode, prefill) if path not in OF_PROMPTS else (prefill, decode)
        mine, other = ours.get(path), theirs.get(path)
        if path in OF_BOTH and mine is None and other is not None:
            del keys[path]
            if path == GRAPHS:
                keys[PROMPT_GRAPHS] = Noted(0, other.why, other.place)
                continue
            told.append(
                Told(other.why, f"{dotted(path)} is said in prefill alone; a scenario has one, decode's")
            )
        elif path in OF_BOTH and other is None and mine is not None:
            told.append(
                Told(mine.why, f"{dotted(path)} is said in decode alone; a scenario has one, for prefill too")
            )
        elif mine is not None:
            keys[path] = mine
            if other is not None and other.value != mine.value:
                sides = ("decode", "prefill") if ours is decode else ("prefill", "decode")
                both = " and ".join(
                    f"{n.value} in {side} ({n.why})" for n, side in zip((mine, other), sides, strict=True)
                )
                told.append(Told(dotted(path), f"{dotted(path)} is {both}; a scenario has one, {sides[0]}'s"))
    return keys, told


def router_key(routers: Sequence[RouterCommand], told: list[Told]) -> tuple[str, str] | None:
    """The scenario's router, from a router's command; None where it says no policy."""
    for router in routers:
        if router.policy is None:
            continue
        if (policy := router.policy.replace("-", "_")) in POLICIES:
            return POLICIES[policy], router.said
        told.append(Told(router.said, f"no such router here; known are {', '.join(POLICIES)}"))
    return None
