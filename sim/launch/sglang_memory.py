"""SGLang's `mem_fraction_static`: the flag's, else what its own reserve leaves of the memory.

    reserve = max(floor, fixed + per token x tokens + per GPU x GPUs + graphs) + all-to-all buffers

as `srt/arg_groups/memory_hook.py` of 0.5.23 draws it up. It runs before the chunk is divided by the ranks and before
drafts bound the running requests, so it takes both as they are given.
"""

from sim import catalog
from sim.launch.command import Command
from sim.launch.derived import Derived


def exchange_of(command: Command) -> str:
    """The all-to-all back-end that a command names; `none` without one."""
    return "deepep" if command.value("deepep_moe") else str(command.value("a2a", "none")).lower()


def memory(found: Derived, dp: int) -> None:
    """The pool's memory fraction; `dp`: attention-DP ranks of the worker."""
    command, machine = found.command, found.machine
    said, name = command.given("memory_fraction"), "memory_fraction"
    if said is not None:
        found.put(name, said.value, said.said, name)
        return
    gpu, engine = machine.gpu, catalog.engine("sglang")
    working = (
        engine.reserve_fixed_bytes
        + engine.reserve_per_token_bytes * max(_tokens(found), engine.reserve_min_tokens)
        + engine.reserve_per_gpu_bytes * found.pool["gpus"].value
        + _graph_bytes(found, dp)
    )
    reserve = max(engine.reserve_floor_bytes, working)
    if found.role != "prefill" and exchange_of(command) == "deepep":
        reserve += engine.reserve_all_to_all_bytes
    fraction = round((gpu.memory_bytes - reserve) / gpu.memory_bytes, 3)
    if fraction > 0:
        why = f"{machine.by_default}: all but {reserve / 2**30:.1f} GiB for activations, graphs and buffers"
        found.put(name, fraction, why, name)


def _captured(found: Derived) -> int:
    """Sequences of the largest captured batch."""
    command, machine = found.command, found.machine
    by_tp = "graph_batch" if command.value("tp", 1) >= 4 else "graph_batch_below_tp4"
    default = machine.defaults.by_memory(by_tp, machine.gpu)
    return int(command.value("graph_batch", min(default, command.value("seats", default))))


def _tokens(found: Derived) -> int:
    """Tokens that the activations' memory grows with: the whole chunk; in decode, what the running requests verify."""
    command, defaults = found.command, found.machine.defaults
    if found.role == "decode":
        return int(command.value("seats", _captured(found)) * command.value("spec_tokens", 1))
    whole = command.value("chunk", defaults.chunk_tokens(found.machine.gpu))
    return int(
        whole if whole > 0 else command.value("max_prefill_tokens", defaults.get("whole_prompt_tokens"))
    )


def _graph_bytes(found: Derived, dp: int) -> float:
    """CUDA graphs: a sum per captured sequence, another per sequence and attention-DP rank, a fixed one for prompts."""
    command, defaults = found.command, found.machine.defaults
    captured, graphs = _captured(found), not command.value("no_graphs")
    size = 0.0
    if found.role != "prefill" and graphs:
        size += captured * catalog.engine("sglang").reserve_per_sequence_bytes
    if found.role != "prefill" and dp > 1:
        size += captured * dp * defaults.get("reserve_per_dp_sequence_bytes")
        if captured > defaults.get("many_sequences"):
            size += captured * dp * defaults.get("reserve_per_many_dp_sequence_bytes")
    whole_steps = graphs and not command.value("two_batch") and int(command.value("pp", 1)) == 1
    if found.role != "decode" and whole_steps and found.machine.model.attention == "mla":
        size += defaults.get("reserve_prefill_graphs_bytes")
        if exchange_of(command) == "deepep":
            size += defaults.get("reserve_prefill_graphs_deepep_bytes")
    return size
