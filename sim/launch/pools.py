"""Several launch commands -> the pools of a service: which are nodes of one worker, which are workers of one pool."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from sim.launch.arguments import Told
from sim.launch.command import Command, RouterCommand
from sim.launch.derived import Derived, Noted, Role
from sim.launch.words import fail

TRANSFERS: Final = ("nixl", "mooncakeconnector", "p2pnccl", "moriio")
"""vLLM's connectors that hand a prompt's KV cache from one worker to another, as their names have it."""
POLICIES: Final = {
    "cache_aware": "prefix_aware",
    "round_robin": "round_robin",
    "random": "round_robin",
    "power_of_two": "least_loaded",
    "least_loaded": "least_loaded",
}
"""Policies of the engines' routers -> the scenario's."""


def with_roles(commands: Sequence[Command], routers: Sequence[RouterCommand]) -> tuple[Command, ...]:
    """vLLM's commands of both sides may say kv_both: a comment above (`# prefill`) or a router's ports then tell.

    Raises ScenarioError where nothing tells.
    """
    transferring = [c for c in commands if c.engine == "vllm" and _hands_over(c)]
    if len(transferring) < 2:
        return tuple(commands)
    return tuple(_with_role(c, routers) if c in transferring else c for c in commands)


def _hands_over(command: Command) -> bool:
    transfer = command.value("transfer")
    if not isinstance(transfer, dict) or transfer.get("kv_role") != "kv_both":
        return False
    return any(name in str(transfer.get("kv_connector", "")).lower() for name in TRANSFERS)


def _with_role(command: Command, routers: Sequence[RouterCommand]) -> Command:
    port = str(command.value("port", "8000"))
    note = command.note.lower()
    sides: tuple[tuple[Literal["prefill", "decode"], str, tuple[str, ...]], ...] = (
        ("prefill", "decode", tuple(a for r in routers for a in r.prefills)),
        ("decode", "prefill", tuple(a for r in routers for a in r.decodes)),
    )
    for role, other, addresses in sides:
        named = any(address == port or address.endswith(f":{port}") for address in addresses)
        if named or (role in note and other not in note):
            return replace(command, told_role=role)
    raise fail(
        command.where("transfer"),
        "kv_both does not tell which side of the service this is; write kv_producer or kv_consumer, or the "
        "comment `# prefill` or `# decode` above the command",
    )


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


def shared(pools: Iterable[PoolOf]) -> tuple[dict[tuple[Any, ...], Noted], list[Told]]:
    """Keys of the whole scenario, and what the pools say differently: those of the pool that decodes are taken."""
    keys: dict[tuple[Any, ...], Noted] = {}
    told: list[Told] = []
    for pool in pools:  # prefill comes before decode
        for path, noted in pool.derived.keys.items():
            before = keys.get(path)
            if before is not None and before.value != noted.value:
                name = ".".join(map(str, path))
                both = f"{name} is {before.value} in prefill ({before.why}), {noted.value} in decode ({noted.why})"
                told.append(Told(name, f"{both}; a scenario has one, decode's"))
            keys[path] = noted
    return keys, told


def router_key(routers: Sequence[RouterCommand], told: list[Told]) -> tuple[str, str] | None:
    """The scenario's router, from a router's command; None where it says no policy."""
    for router in routers:
        if router.policy is None:
            continue
        if router.policy in POLICIES:
            return POLICIES[router.policy], f"--policy {router.policy}"
        told.append(
            Told(f"--policy {router.policy}", f"no such router here; known are {', '.join(POLICIES)}")
        )
    return None
