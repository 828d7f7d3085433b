"""Which side of a disaggregated service a command starts, where something beside it tells."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final, Literal

from sim.launch.command import Command
from sim.launch.routers import RouterCommand
from sim.launch.words import fail

Side = Literal["prefill", "decode"]

TRANSFERS: Final = ("nixl", "mooncakeconnector", "p2pnccl", "moriio")
"""vLLM's connectors that hand a prompt's KV cache from one worker to another, as their names have it."""
PORTS: Final = {"vllm": "8000", "trtllm": "8000"}
"""Where a server listens by default."""


def with_roles(commands: Sequence[Command], routers: Sequence[RouterCommand]) -> tuple[Command, ...]:
    """The commands, those that do not say their side told by a router's addresses or by a comment above (`# prefill`).

    Raises ScenarioError where a side is needed and nothing tells.
    """
    return tuple(
        replace(command, told_role=_side(command, routers)) if _needs(command, commands, routers) else command
        for command in commands
    )


def _needs(command: Command, commands: Sequence[Command], routers: Sequence[RouterCommand]) -> bool:
    if command.engine == "vllm" and command.wrapper:  # Dynamo's plain worker decodes beside one that does not
        return not _says_side(command) and any(other.value("prefill_side") for other in commands)
    if command.engine == "vllm":
        return _hands_over(command) and sum(map(_hands_over, commands)) > 1
    if command.engine == "trtllm":
        served = any(one.prefills or one.decodes or one.unread for one in routers)
        return served and len(commands) > 1 and not command.given("role")
    return False


def _says_side(command: Command) -> bool:
    return any(command.given(name) for name in ("role", "prefill_side", "decode_side"))


def _hands_over(command: Command) -> bool:
    transfer = command.value("transfer")
    if _says_side(command) or not isinstance(transfer, dict) or transfer.get("kv_role") != "kv_both":
        return False
    return any(name in str(transfer.get("kv_connector", "")).lower() for name in TRANSFERS)


def _side(command: Command, routers: Sequence[RouterCommand]) -> Side:
    if command.wrapper:
        return "decode"
    port = str(command.value("port", PORTS[command.engine]))
    note = command.note.lower()
    sides: tuple[tuple[Side, str, tuple[str, ...]], ...] = (
        ("prefill", "decode", tuple(a for r in routers for a in r.prefills)),
        ("decode", "prefill", tuple(a for r in routers for a in r.decodes)),
    )
    for role, other, addresses in sides:
        named = any(address == port or address.rstrip("/").endswith(f":{port}") for address in addresses)
        if named or (role in note and other not in note):
            return role
    if unread := next((one.unread for one in routers if one.unread), None):
        raise unread
    if command.engine == "trtllm":
        says = f"port {port} is none of the servers that `trtllm-serve disaggregated` names, and no --server_role"
        raise fail(command.where("port"), f"{says} tells which side of the service this is")
    raise fail(
        command.where("transfer"),
        "kv_both does not tell which side of the service this is; write kv_producer or kv_consumer, or the "
        "comment `# prefill` or `# decode` above the command",
    )
