"""vLLM's launch command as a pool. Rules of release 0.33, `vllm/engine/arg_utils.py` and `vllm/config`."""

from collections.abc import Mapping
from typing import Any, Final

from sim.launch import derived as rule
from sim.launch import indexer, kernels
from sim.launch.command import Command
from sim.launch.derived import Derived, Machine
from sim.launch.words import fail
from sim.units import GB_BYTES, GIB_BYTES

ROLES: Final[Mapping[str, rule.Role]] = {
    "kv_producer": "prefill",
    "kv_consumer": "decode",
    "kv_both": "serve",
}
SIDES: Final[Mapping[str, rule.Role | None]] = {
    "agg": "serve",
    "prefill": "prefill",
    "decode": "decode",
    "": None,
}
"""Dynamo's `--disaggregation-mode`."""
GATHERED: Final = ("allgather_reducescatter", "naive", "pplx")
"""Exchanges that gather, the last two under the first one's name since they were taken out."""
LOW_LATENCY: Final = ("deepep_low_latency", "mori_low_latency", "nixl_ep")


def derive(command: Command, machine: Machine) -> Derived:
    """The pool of one worker. Raises ScenarioError where its flags contradict one another."""
    found = Derived(command, machine, "serve")
    found.role = command.told_role or _role(command)
    found.worker = _worker(command)
    _layout(found)
    rule.weights(found)
    rule.kv_cache(found)
    indexer.read(found)
    _attention(found)
    _drafts(found)
    _steps(found)
    _experts(found)
    _cache(found)
    return found


def _role(command: Command) -> rule.Role:
    """The side that its own flags tell; Dynamo's come before those of the engine."""
    asked = {"prefill_side": "prefill", "decode_side": "decode"}
    said = next((side for name, side in asked.items() if command.value(name)), command.value("role", ""))
    if str(said).lower() not in SIDES:
        raise fail(
            command.where("role"), f"{command.said('role')}: expected one of {', '.join(filter(None, SIDES))}"
        )
    if side := SIDES[str(said).lower()]:
        return side
    transfer = command.value("transfer") or {}
    role = transfer.get("kv_role", "kv_both")
    if not isinstance(role, str) or role not in ROLES:
        raise fail(command.where("transfer"), f"kv_role '{role}': expected one of {', '.join(ROLES)}")
    return ROLES[role]


def _worker(command: Command) -> tuple[str, ...]:
    """What the commands of one worker's nodes share: the head's address."""
    parts = [command.value(name) for name in ("dp_address", "master")]
    nodes = command.value("nnodes", 2 if command.given("nnodes") else 1)
    spread = nodes > 1 or command.given("dp_local") or command.given("dp_rank")
    if not (spread or command.value("headless")):
        return ()
    return tuple(str(part or "") for part in parts)


def _layout(found: Derived) -> None:
    command, machine = found.command, found.machine
    tp, dp = int(command.value("tp", 1)), int(command.value("dp", 1))
    stages = rule.single_stage(found)
    if int(command.value("pcp", 1)) > 1:
        found.tell(command.said("pcp"), "context parallelism is not modelled; its GPUs are left out")
    _check_local(found, tp, dp)
    dense = not machine.model.n_routed
    gpus = tp * stages * (1 if dense else dp)
    ep_on = bool(command.value("ep")) and not dense
    ep_why = (
        command.said("ep") or f"{machine.by_default}: without --enable-expert-parallel experts are sharded"
    )
    gpus_why = f"{command.said('tp', 'dp', 'pp') or machine.by_default}"
    tp_why = command.said("tp", "pp") or machine.by_default
    why = {"gpus": gpus_why, "tp": tp_why, "ep": "a dense model" if dense else ep_why}
    rule.layout(found, gpus, tp * stages, gpus if ep_on else 1, why)
    if dense and dp > 1:
        found.put("workers", dp, f"{command.said('dp')}: a dense model's ranks share nothing", "dp")
    asked, asked_by = _kernels(command)
    fused = kernels.exchange(asked)
    if fused and not ep_on and not dense:
        raise fail(
            command.where("moe_backend", "kernel_config"), f"{asked_by} needs --enable-expert-parallel"
        )
    if ep_on and tp * stages < gpus and fused:
        found.put("exchange", "all_to_all", f"{asked_by}: part of the experts' kernels", "moe_backend")
    elif ep_on and tp * stages < gpus:
        backend = str(command.value("a2a", GATHERED[0])).lower()
        exchange = "all_gather" if backend in GATHERED else "all_to_all"
        found.put("exchange", exchange, command.said("a2a") or f"{machine.by_default}: {GATHERED[0]}", "a2a")
        low = backend in LOW_LATENCY
        if exchange == "all_to_all" and ((found.role == "serve") or low != (found.role == "decode")):
            told = "prompts are priced in the exchange's normal mode, answers in its low-latency mode"
            found.tell(command.said("a2a"), told)


def _kernels(command: Command) -> tuple[str, str]:
    """Kernels of the experts that a command asks for, and by which flag."""
    config: dict[str, Any] = command.value("kernel_config") or {}
    if "moe_backend" in config and not command.given("moe_backend"):
        return str(config["moe_backend"]), f"--kernel-config moe_backend={config['moe_backend']}"
    return str(command.value("moe_backend", "")), command.said("moe_backend")


def _check_local(found: Derived, tp: int, dp: int) -> None:
    """The ranks of one node against all ranks, and their GPUs against the node's."""
    command, gpu = found.command, found.machine.gpu
    local = command.value("dp_local")
    if not local:
        return
    place = command.where("dp_local")
    if local > dp or dp % local:
        raise fail(place, f"{command.said('dp_local')} does not divide {command.said('dp') or 'dp 1'}")
    if local * tp > gpu.gpus_per_node:
        taken = f"{command.said('tp', 'dp_local')} take {local * tp} GPUs of a node"
        raise fail(place, f"{taken}; {gpu.name} has {gpu.gpus_per_node}")


def _drafts(found: Derived) -> None:
    command, machine = found.command, found.machine
    said = command.said("spec", "spec_method", "spec_model", "spec_count")
    asked: dict[str, Any] = dict(command.value("spec") or {})
    method = str(asked.pop("method", command.value("spec_method", "")) or "").lower()
    model = str(asked.pop("model", command.value("spec_model", "")) or "")
    count = _whole(asked.pop("num_speculative_tokens", command.value("spec_count")))
    if count != command.value("spec_count", count):
        raise fail(
            command.where("spec_count"), f"{command.said('spec_count')} beside num_speculative_tokens {count}"
        )
    flags = ("spec", "spec_count", "spec_method")
    if not said:
        rule.drafts(found, 0, machine.by_default)
        return
    if count is not None and (not isinstance(count, int) or count < 1):
        raise fail(
            command.where(*flags), f"num_speculative_tokens takes a whole number from 1, got {count!r}"
        )
    if rule.block_drafts(found, method, count, said, *flags):
        _untold(found, asked)
        return
    own_model = not model or rule.is_mtp(model) or model == command.value("model")
    if not (rule.is_mtp(method) or (not method and own_model)):
        found.tell(said, "only the model's own MTP module drafts here; none are priced")
        rule.drafts(found, 0, said, *flags)
        return
    if count is None:
        rule.drafts(found, machine.defaults.get("drafts"), f"{said}, {machine.by_default}", *flags)
    else:
        rule.drafts(found, count, said, *flags)
    _untold(found, asked)


def _untold(found: Derived, asked: Mapping[str, Any]) -> None:
    """What is left of the drafts' configuration."""
    for key in sorted(
        set(asked) - {"draft_tensor_parallel_size", "tensor_parallel_size", "quantization", "revision"}
    ):
        found.tell(
            f"--speculative-config {key}", "acceptance of drafts is the catalog's; this part is not modelled"
        )


def _whole(value: Any) -> Any:
    """A whole number that JSON has in quotes, as vLLM takes it; anything else as it is."""
    return int(value) if isinstance(value, str) and value.isdecimal() and len(value) < 10 else value


def _steps(found: Derived) -> None:
    """Every data-parallel rank is an engine of its own: seats and token budget are per rank."""
    command, machine = found.command, found.machine
    twice = 2 if command.value("mode") == "throughput" else 1
    doubled = f", doubled by {command.said('mode')}" if twice == 2 else ""
    chunk = machine.defaults.chunk_tokens(machine.gpu) * twice
    chunk_why = command.said("chunk") or f"{machine.by_default} on {machine.gpu.name}{doubled}"
    per_rank = machine.defaults.by_memory("seats", machine.gpu) * twice
    seats_why = command.said("seats") or f"{machine.by_default}: {per_rank} per rank{doubled}"
    if found.role != "prefill" or command.given("seats"):
        rule.seats(found, int(command.value("seats", per_rank)), found.pool["tp"].value, seats_why, "seats")
    if found.role != "decode":
        found.put("chunk_tokens", int(command.value("chunk", chunk)), chunk_why, "chunk")
    fraction = command.value("memory_fraction", machine.defaults.get("memory_fraction"))
    found.put(
        "memory_fraction", fraction, command.said("memory_fraction") or machine.by_default, "memory_fraction"
    )
    if command.value("two_batch"):
        found.say(("overlap", "two_batch"), True, command.said("two_batch"), "two_batch")
    if command.value("no_graphs"):
        found.say(("scheduling", "cuda_graphs"), False, command.said("no_graphs"), "no_graphs")
    if not command.value("chunked", True) and found.role != "decode":
        found.say(("scheduling", "whole_prompts"), True, command.said("chunked"), "chunked")
    if command.given("poll"):
        found.say(
            ("scheduling", "poll_every_steps"), max(1, command.value("poll")), command.said("poll"), "poll"
        )


def _attention(found: Derived) -> None:
    config = dict(found.command.value("attention_config") or {})
    in_fp4 = str(config.pop("use_fp4_indexer_cache", False)).lower() == "true"  # pydantic takes the word, too
    in_fp4 |= str(config.pop("indexer_kv_dtype", "auto")).lower() == "mxfp4"  # its name since
    rule.index_keys(found, in_fp4, "attention_config")
    for key in sorted(config):
        why = "kernels and collectives are those of the measured tables"
        found.tell(f"{found.command.said('attention_config')}: {key}", why)


def _experts(found: Derived) -> None:
    command = found.command
    if not found.machine.model.n_routed:
        return
    kernels.read(found, *_kernels(command))
    for key in sorted(set(command.value("kernel_config") or {}) - {"moe_backend"}):
        found.tell(f"--kernel-config {key}", "kernels are those of the measured tables")
    config = dict(command.value("eplb_config") or {})
    redundant = _whole(config.pop("num_redundant_experts", command.value("redundant", 0)))
    if not isinstance(redundant, int) or redundant < 0:
        place = command.where("eplb_config", "redundant")
        raise fail(place, f"num_redundant_experts takes a whole number from 0, got {redundant!r}")
    on = rule.balances(found, "--enable-expert-parallel over several GPUs")
    if redundant and not on:
        said = command.said("eplb_config", "redundant")
        raise fail(command.where("eplb_config", "redundant"), f"{said} needs --enable-eplb")
    rule.replicas(found, redundant, on, command.said("eplb", "eplb_config", "redundant"))
    for key in sorted(config):
        why = "how replicas are moved is set in `experts` (rebalance_every_steps, staleness_rho)"
        found.tell(f"--eplb-config {key}", why)


def _cache(found: Derived) -> None:
    command, machine = found.command, found.machine
    transfer = command.value("transfer")
    if isinstance(transfer, dict) and found.role == "serve":
        why = f"{transfer.get('kv_connector', 'a connector')} as kv_both on one worker is not modelled"
        found.tell(command.said("transfer"), why)
    if found.role == "decode":
        return
    on = bool(command.value("prefix_cache", True))
    rule.prefix_cache(found, on, command.said("prefix_cache") or machine.by_default)
    if (size := command.value("host_cache_gib")) is not None:
        said = f"{command.said('host_cache_gib')} GiB"
        found.say(("prefix_cache", "host_gb"), round(size * GIB_BYTES / GB_BYTES, 3), said, "host_cache_gib")
