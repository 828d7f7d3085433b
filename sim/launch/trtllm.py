"""TensorRT-LLM's launch command, flags and YAML file, as a pool: `trtllm-serve` 1.x with the PyTorch backend."""

from collections.abc import Mapping
from typing import Any, Final

from sim.catalog import Gpu
from sim.launch import derived as rule
from sim.launch import indexer, kernels
from sim.launch.command import Command
from sim.launch.derived import Derived, Machine
from sim.launch.words import fail
from sim.units import GB_BYTES

ROLES: Final[Mapping[str, rule.Role]] = {
    "": "serve",
    "context": "prefill",
    "generation": "decode",
    "prefill": "prefill",
    "decode": "decode",
    "agg": "serve",
    "pd": "serve",
    "prefill_and_decode": "serve",
}
"""`--server_role`, and Dynamo's `--disaggregation-mode`."""


def derive(command: Command, machine: Machine) -> Derived:
    """The pool of one worker. Raises ScenarioError where its flags contradict one another."""
    said_role = str(command.value("role", "")).lower()
    if said_role not in ROLES:
        sides = "prefill or decode" if command.wrapper else "CONTEXT or GENERATION"
        raise fail(command.where("role"), f"{command.said('role')}: expected {sides}")
    found = Derived(command, machine, command.told_role or ROLES[said_role])
    _layout(found)
    rule.weights(found)
    rule.kv_cache(found)
    indexer.read(found)
    _drafts(found)
    _steps(found)
    _experts(found)
    _cache(found)
    return found


def _layout(found: Derived) -> None:
    command, machine = found.command, found.machine
    tp = int(command.value("tp", 1))
    gpus = tp * rule.single_stage(found)
    moe_tp, ep = command.value("moe_tp"), command.value("ep")
    if command.given("ep"):
        rule.divides(found, int(ep), tp, "ep")
    if command.given("moe_tp"):
        rule.divides(found, int(moe_tp), tp, "moe_tp")
    if ep and moe_tp and int(ep) * int(moe_tp) != tp:
        said = command.said("ep", "moe_tp")
        raise fail(command.where("moe_tp"), f"{said}: their product is not {command.said('tp') or 'tp 1'}")
    if int(command.value("moe_cluster", 1) or 1) > 1:
        found.tell(command.said("moe_cluster"), "clusters of experts are not modelled")
    ep_size = int(ep) if ep else tp // int(moe_tp) if moe_tp else 1
    ep_why = command.said("ep", "moe_tp") or f"{machine.by_default}: experts are sharded, not spread"
    if not machine.model.n_routed:
        ep_size, ep_why = 1, "a dense model"
    attention_dp = bool(command.value("attention_dp"))
    tp_why = command.said("attention_dp") if attention_dp else command.said("tp", "pp") or machine.by_default
    why = {"gpus": command.said("tp", "pp") or machine.by_default, "tp": tp_why, "ep": ep_why}
    rule.layout(found, gpus, 1 if attention_dp else gpus, ep_size, why)
    if attention_dp and gpus > 1 and ep_size == gpus:
        _exchange(found)


def _exchange(found: Derived) -> None:
    """All-to-all or gathers: what the environment forces, else the engine's choice."""
    command, machine = found.command, found.machine
    if kernels.exchange(command.value("moe_backend")):
        why = f"{command.said('moe_backend')}: part of the experts' kernels"
        found.put("exchange", "all_to_all", why, "moe_backend")
        return
    forced = str(command.value("a2a", "")).lower()
    by_itself = exchanges_by_itself(machine.gpu, found.pool["ep"].value, machine.model.top_k)
    all_to_all = by_itself if not forced else forced not in ("notenabled", "none")
    reach = "joins a rack" if machine.gpu.scale_up_domain > machine.gpu.gpus_per_node else "joins a node only"
    why = (
        command.said("a2a")
        or f"{machine.by_default}: NVLink {reach}, EP of {machine.model.top_k} experts per token"
    )
    found.put("exchange", "all_to_all" if all_to_all else "all_gather", why, "a2a")


def exchanges_by_itself(gpu: Gpu, ep: int, top_k: int) -> bool:
    """Whether TensorRT-LLM chooses an all-to-all: NVLink joins a rack, and EP is wider than a token has experts
    (fused_moe_wide_ep.py, select_alltoall_method_type; DeepEP needs TRTLLM_CAN_USE_DEEP_EP)."""
    return gpu.scale_up_domain > gpu.gpus_per_node and ep > top_k


def _drafts(found: Derived) -> None:
    command, machine = found.command, found.machine
    kind = str(command.value("spec", "none")).lower()
    flags = ("spec", "spec_count", "spec_len")
    if kind == "none":
        rule.drafts(found, 0, machine.by_default)
    elif kind != "mtp":
        found.tell(command.said("spec"), "only the model's own MTP module drafts here; none are priced")
        rule.drafts(found, 0, command.said("spec"), *flags)
    else:
        count = command.value("spec_len", command.value("spec_count"))
        why = command.said(*flags)
        if count is None:
            count, why = machine.defaults.get("drafts"), f"{why}, {machine.by_default}"
        rule.drafts(found, int(count), why, *flags)


def _steps(found: Derived) -> None:
    """max_batch_size and max_num_tokens are of every attention-DP rank."""
    command, machine = found.command, found.machine
    per_rank = machine.defaults.by_memory("seats", machine.gpu)
    seats_why = command.said("seats") or f"{machine.by_default}: {per_rank} per rank"
    if found.role != "prefill" or command.given("seats"):
        rule.seats(found, int(command.value("seats", per_rank)), found.pool["tp"].value, seats_why, "seats")
    if found.role != "decode":
        chunk = machine.defaults.chunk_tokens(machine.gpu)
        why = command.said("chunk") or f"{machine.by_default}: max_num_tokens"
        found.put("chunk_tokens", int(command.value("chunk", chunk)), why, "chunk")
    fraction = command.value("memory_fraction", machine.defaults.get("kv_fraction_of_free"))
    found.put(
        "memory_fraction", fraction, command.said("memory_fraction") or machine.by_default, "memory_fraction"
    )
    graphs = command.given("graphs")
    if graphs and graphs.value is None:
        found.say(("scheduling", "cuda_graphs"), False, graphs.said, "graphs")
    if command.value("balance"):
        waits = int(command.value("timeout_iters", machine.defaults.get("wait_all_ranks_steps")))
        said = command.said("balance", "timeout_iters")
        why = said if command.given("timeout_iters") else f"{said}, {machine.by_default}"
        found.say(("scheduling", "wait_all_ranks_steps"), waits, why, "timeout_iters", "balance")
    habits: dict[str, tuple[str, Any]] = {
        "gather_iters": ("gather_prompts_steps", command.value("gather_iters")),
        "batch_wait_iters": ("batch_wait_steps", command.value("batch_wait_iters")),
        "batch_wait_fill": ("batch_wait_fill", command.value("batch_wait_fill")),
        "chunked": ("whole_prompts", not command.value("chunked")),
    }
    for setting, (key, value) in habits.items():
        if command.given(setting):
            found.say(("scheduling", key), value, command.said(setting), setting)


def _experts(found: Derived) -> None:
    command, model = found.command, found.machine.model
    if not model.n_routed:
        return
    kernels.read(found, command.value("moe_backend", ""), command.said("moe_backend"))
    balancer: Any = command.value("load_balancer")
    if isinstance(balancer, dict) and balancer.get("num_slots"):
        slots = balancer["num_slots"]
        if not isinstance(slots, int) or slots < model.n_routed:
            said = command.said("load_balancer")
            raise fail(
                command.where("load_balancer"),
                f"{said}: expected at least the {model.n_routed} experts' slots",
            )
        rule.replicas(found, slots - model.n_routed, True, command.said("load_balancer"))
    elif balancer is not None:
        found.tell(
            command.said("load_balancer"), "a file of placements is not read; set `experts` of the pool"
        )


def _cache(found: Derived) -> None:
    command, machine = found.command, found.machine
    if found.role == "decode":
        return
    on = bool(command.value("prefix_cache", True))
    rule.prefix_cache(found, on, command.said("prefix_cache") or machine.by_default)
    for setting, key in (("host_cache_bytes", "host_gb"), ("disk_cache_bytes", "disk_gb")):
        if command.value(setting):
            size = round(command.value(setting) / GB_BYTES, 3)
            found.say(("prefix_cache", key), size, command.said(setting), setting)
