"""SGLang's launch command as a pool. Rules of release 0.5.23, `srt/arg_groups`; defaults in `sim/catalog/engines`."""

from typing import Final

from sim.launch import derived as rule
from sim.launch import indexer
from sim.launch import sglang_experts as experts
from sim.launch import sglang_graphs as graphs
from sim.launch.command import Command
from sim.launch.derived import Derived, Machine, Noted
from sim.launch.sglang_exchange import NAMED, exchange_of, named
from sim.launch.sglang_memory import memory
from sim.launch.words import fail

ALL_TO_ALL: Final = frozenset(
    {"deepep", "deepep_v2", "mooncake", "nixl", "flashinfer", "flashinfer_megamoe", "megamoe", "mori", "pplx"}
)
"""Exchanges with which EP spans the whole TP group (overrides.py, _A2A_EP_SPANNING_BACKENDS)."""
BALANCES: Final = {
    "auto": "round_robin",
    "round_robin": "round_robin",
    "total_requests": "least_loaded",
    "total_tokens": "least_loaded",
}
"""How a worker's attention-DP ranks share its requests (serving_hook.py, handle_load_balance_method)."""
ROLES: Final = {"prefill": "prefill", "decode": "decode", "null": "serve", "none": "serve"}


def derive(command: Command, machine: Machine) -> Derived:
    """The pool of one worker. Raises ScenarioError where its flags contradict one another."""
    said_role = str(command.value("role", "null")).lower()
    if said_role not in ROLES:
        raise fail(command.where("role"), f"{command.said('role')}: expected prefill, decode or null")
    found = Derived(command, machine, ROLES[said_role])  # type: ignore[arg-type]
    spread = command.value("nnodes", 2 if command.given("nnodes") else 1) > 1
    found.worker = (str(command.value("dist_init_addr", "")),) if spread else ()
    dp = _layout(found)
    rule.weights(found)
    rule.kv_cache(found)
    rule.index_keys(found, bool(found.command.value("index_in_fp4")), "index_in_fp4")
    indexer.read(found)
    _drafts(found)
    _steps(found, dp)
    memory(found, dp)
    experts.read(found)
    _cache(found)
    if command.wrapper and found.role != "serve":
        why = f"started by {command.wrapper}, whose prefill leg returns at once (ai-dynamo/dynamo pull request 7590)"
        found.say(("scheduling", "waits_for_prefill_answer"), False, why)
    return found


def _layout(found: Derived) -> int:
    """GPUs and how they are shared; attention-DP ranks of the worker."""
    command, machine = found.command, found.machine
    tp, dp, attn_dp = (int(command.value(name, 1)) for name in ("tp", "dp", "attn_dp"))
    gpus = tp * rule.single_stage(found)
    if command.value("dp_attention") and attn_dp == 1:
        attn_dp, dp = dp, 1
    rule.divides(found, attn_dp, tp, "attn_dp" if command.given("attn_dp") else "dp")
    ep = int(command.value("ep", tp if command.value("enable_ep_moe") else 1))
    a2a = exchange_of(command)
    ep_why = command.said("ep", "enable_ep_moe") or f"{machine.by_default}: experts are sharded, not spread"
    if a2a in ALL_TO_ALL:
        ep, ep_why = tp, f"{named(command)}: EP spans all GPUs"
    rule.divides(found, ep, tp, "ep")
    if not machine.model.n_routed:
        ep, ep_why = 1, "a dense model"
    attention_dp = command.said("dp", "attn_dp", "dp_attention")
    if attn_dp > 1:
        tp_why = f"{command.said('tp')} / {attn_dp} ({attention_dp})"
    elif command.value("dp_attention"):
        tp_why = (
            f"{command.said('tp') or 'tp 1'}; {command.said('dp_attention')} without --dp-size does nothing"
        )
    else:
        tp_why = command.said("tp") or machine.by_default
    gpus_why = command.said("tp", "pp", "nnodes") or machine.by_default
    rule.layout(found, gpus, gpus // attn_dp, ep, {"gpus": gpus_why, "tp": tp_why, "ep": ep_why})
    if dp > 1:
        found.put("workers", dp, f"{command.said('dp')}: replicas, each with its own GPUs", "dp")
    if attn_dp > 1 and ep == gpus:
        gathers = named(command) if a2a in ALL_TO_ALL else f"{machine.by_default}: no all-to-all"
        exchange = "all_to_all" if a2a in ALL_TO_ALL else "all_gather"
        found.put("exchange", exchange, gathers, *NAMED)
    _dispatch(found, a2a)
    return attn_dp


def _dispatch(found: Derived, a2a: str) -> None:
    """DeepEP's mode: prompts in the normal one and answers in the low-latency one, or it is told."""
    mode = found.command.value("deepep_mode", "auto")
    fits = {"serve": ("auto",), "prefill": ("auto", "normal"), "decode": ("auto", "low_latency")}[found.role]
    if a2a in ALL_TO_ALL and mode not in fits:
        why = "prompts are priced in DeepEP's normal mode, answers in its low-latency mode"
        found.tell(found.command.said("deepep_mode"), why)


def _drafts(found: Derived) -> None:
    """MTP in a chain: the steps; anything else is told and priced without drafts."""
    command, machine = found.command, found.machine
    algorithm = str(command.value("spec", "none")).upper()
    flags = ("spec", "spec_steps", "spec_topk", "spec_tokens")
    if algorithm == "NONE":
        if idle := command.said(*flags[1:], "spec_block"):
            found.tell(idle, "it does nothing without --speculative-algorithm")
        rule.drafts(found, 0, machine.by_default)
        return
    if rule.drafts_blocks(found, algorithm):
        _block_drafts(found, algorithm)
        return
    if command.given("spec_block"):
        found.tell(command.said("spec_block"), f"only DSPARK drafts blocks, not {algorithm}")
    model = str(command.value("spec_model", ""))
    own = not model or rule.is_mtp(model) or model == command.value("model")
    if algorithm not in ("EAGLE", "NEXTN") or not own:
        found.tell(
            command.said("spec", "spec_model"), "only the model's own MTP module drafts here; none are priced"
        )
        rule.drafts(found, 0, command.said("spec"), *flags)
        return
    steps, topk = command.value("spec_steps"), int(command.value("spec_topk", 1))
    if steps is None and command.said("spec_topk", "spec_tokens"):
        said = command.said("spec_topk", "spec_tokens")
        raise fail(
            command.where("spec_topk", "spec_tokens"), f"{said} needs --speculative-num-steps beside it"
        )
    if topk > 1:
        found.tell(command.said("spec_topk"), f"a tree of drafts is priced as a chain of {steps}")
    verified = command.value("spec_tokens")
    if topk == 1 and verified is not None and verified != steps + 1:
        found.tell(command.said("spec_tokens"), f"a chain of {steps} drafts verifies {steps + 1} tokens")
    if steps is None:
        rule.drafts(
            found, machine.defaults.get("drafts"), f"{command.said('spec')}, {machine.by_default}", *flags
        )
    else:
        rule.drafts(found, int(steps), command.said(*flags), "spec_steps")


def _block_drafts(found: Derived, algorithm: str) -> None:
    """DSpark: a block in one step, verified with one token more (speculative_hook.py: any other count is refused,
    other steps and branches are set to 1)."""
    command = found.command
    block = int(command.value("spec_block", found.machine.model.dspark_block))
    verified = command.value("spec_tokens")
    if verified is not None and verified != block + 1:
        whose = command.said("spec_block") or f"the drafter's block of {block}"
        says = f"with {command.said('spec')} SGLang takes only {block + 1}, one more than {whose}"
        raise fail(command.where("spec_tokens"), f"{command.said('spec_tokens')}: {says}")
    for name in ("spec_steps", "spec_topk"):
        if command.value(name, 1) != 1:
            found.tell(command.said(name), "DSPARK drafts a block in one step, without branches: taken as 1")
    rule.block_drafts(found, algorithm, block, command.said("spec", "spec_block"), "spec", "spec_block")


def _steps(found: Derived, dp: int) -> None:
    """Seats and chunk of a rank, and habits of its steps."""
    command, machine = found.command, found.machine
    tp, drafting = found.pool["tp"].value, str(command.value("spec", "none")).upper() != "NONE"
    if found.role != "prefill" or command.given("seats"):
        total, why = command.value("seats"), command.said("seats")
        if total is None and machine.model.compressed:
            total = machine.defaults.get("seats_compressed")
            why = f"{machine.by_default} of {machine.model.name}: {total}"
        elif total is None and drafting:
            total = machine.defaults.get("seats_with_drafts")
            why = f"{machine.by_default} with {command.said('spec')}: {total}"
        shared = f" / {dp} ranks" if dp > 1 else ""
        per_rank = machine.defaults.by_memory("seats", machine.gpu)
        why = f"{why}{shared}" if total is not None else f"{machine.by_default}: {per_rank} per rank"
        rule.seats(found, per_rank if total is None else max(1, int(total) // dp), tp, why, "seats")
    if found.role != "decode":
        found.pool["chunk_tokens"] = _chunk(found, dp)
    if command.value("two_batch"):
        found.say(("overlap", "two_batch"), True, command.said("two_batch"), "two_batch")
    if off := graphs.decode_off(command):
        found.say(
            ("scheduling", "cuda_graphs"), False, off, "no_graphs", "graph_backend_decode", "graph_config"
        )
    if command.value("mixed") and found.role == "serve":
        found.say(("scheduling", "mix_prompts"), True, command.said("mixed"), "mixed")
    if command.given("decode_poll") and found.role == "decode":
        found.say(
            ("scheduling", "decode_poll_steps"),
            command.value("decode_poll"),
            command.said("decode_poll"),
            "decode_poll",
        )
    if found.role != "decode":
        _prompt_graphs(found)
    if command.given("poll"):
        found.say(
            ("scheduling", "poll_every_steps"), max(1, command.value("poll")), command.said("poll"), "poll"
        )
    if command.given("rest"):
        found.say(
            ("scheduling", "rest_after_prompts_steps"), command.value("rest"), command.said("rest"), "rest"
        )
    if command.value("delay") and found.role == "serve":
        passes = int(command.value("delay_passes", machine.defaults.get("wait_all_ranks_steps")))
        said = command.said("delay", "delay_passes")
        why = said if command.given("delay_passes") else f"{said}, {machine.by_default}"
        found.say(("scheduling", "wait_all_ranks_steps"), passes, why, "delay", "delay_passes")


def _prompt_graphs(found: Derived) -> None:
    """Whether graphs launch steps with prompts, and up to how many tokens."""
    command = found.command
    off, most = graphs.prompts_off(command), graphs.prompt_tokens(command)
    settings = ("no_prompt_graphs", "graph_backend_prefill", "prompt_graph_tokens", "graph_config")
    if off or most:
        tokens, said = (0, off) if off or most is None else (most.value, most.said)
        found.say(("scheduling", "prefill_graph_tokens"), tokens, said, *settings)
    if said := graphs.others(command):
        found.tell(said, "which batches and prompts are captured beside these is not modelled")


def _chunk(found: Derived, dp: int) -> Noted:
    """New prompt tokens per rank: with attention DP the flag is divided by the ranks."""
    command, machine = found.command, found.machine
    whole, why = command.value("chunk"), command.said("chunk")
    if whole is None:
        whole = machine.defaults.chunk_tokens(machine.gpu)
        why = f"{machine.by_default} on {machine.gpu.name}: {whole}"
    elif whole <= 0:
        whole = int(command.value("max_prefill_tokens", machine.defaults.get("whole_prompt_tokens")))
        found.say(("scheduling", "whole_prompts"), True, why, "chunk")
        why = f"{why}: whole prompts, as many as fit {whole} tokens"
        return Noted(whole, why, command.where("chunk"))
    if dp > 1 and machine.defaults.get("divides_chunk_by_dp"):
        why = f"{why} / {dp} attention-DP ranks"
        whole //= dp
    return Noted(max(1, whole), why, command.where("chunk"))


def _cache(found: Derived) -> None:
    """Prefix cache: on unless it is off; decode workers have none of their own."""
    command = found.command
    if found.role != "decode":
        off = bool(command.value("no_prefix_cache"))
        rule.prefix_cache(found, not off, command.said("no_prefix_cache") or found.machine.by_default)
    if command.value("host_cache") and found.role != "decode":
        size = command.value("host_cache_gb", 0)
        if size:
            found.say(
                ("prefix_cache", "host_gb"), float(size), command.said("host_cache_gb"), "host_cache_gb"
            )
        else:
            ratio = command.value("host_cache_ratio", found.machine.defaults.get("host_cache_ratio"))
            why = (
                command.said("host_cache_ratio")
                or f"{command.said('host_cache')}, {found.machine.by_default}"
            )
            found.host_ratio = Noted(ratio, why, command.where("host_cache_ratio", "host_cache"))
    if found.role != "prefill" and found.pool["tp"].value < found.pool["gpus"].value:
        method = str(command.value("balance", "auto")).lower()
        why = command.said("balance") or f"{found.machine.by_default}: --load-balance-method auto"
        if method in BALANCES:
            found.say(("router",), BALANCES[method], why, "balance")
        else:
            found.tell(why, f"ranks are chosen otherwise here; known are {', '.join(BALANCES)}")
