"""SGLang's `mem_fraction_static`: the flag's, else what its own reserve (`sim.catalog.reserve`) leaves of the memory.

The reserve is drawn up before the chunk is divided by the ranks and before
drafts bound the running requests, so it takes both as they are given.
"""

from dataclasses import replace

from sim import catalog
from sim.catalog import Work
from sim.catalog.reserve import MIB
from sim.launch.derived import Derived
from sim.launch.sglang_exchange import exchange_of
from sim.launch.sglang_graphs import decode_batch, decode_off, prompts_off
from sim.model.attention import only_latents
from sim.units import GIB_BYTES


def memory(found: Derived, dp: int) -> None:
    """The pool's memory fraction; `dp`: attention-DP ranks of the worker."""
    command, machine = found.command, found.machine
    said, name = command.given("memory_fraction"), "memory_fraction"
    if said is not None:
        found.put(name, said.value, said.said, name)
        return
    gpu = machine.gpu
    reserve = catalog.engine("sglang", machine.defaults.release).reserve
    if decode_batch(command) or decode_off(command):
        reserve = replace(reserve, captured={})  # not as many as by default
    kept = reserve.bytes(
        Work(
            role=found.role,
            memory_bytes=gpu.memory_bytes,
            gpus=int(found.pool["gpus"].value),
            ranks=dp,
            all_to_all=False,  # the graphs of attention DP count here: no recipe says otherwise
            chunk_tokens=_tokens(found),
            sequences=0 if decode_off(command) else _captured(found),
            drafts=max(0, int(command.value("spec_tokens", 1)) - 1),
            prefill_graphs=_captures_prompts(found),
        )
    )
    if found.role != "prefill" and exchange_of(command) == "deepep":
        kept += reserve.all_to_all * MIB
    fraction = round((gpu.memory_bytes - kept) / gpu.memory_bytes, 3)
    if fraction > 0:
        why = f"{machine.by_default}: all but {kept / GIB_BYTES:.1f} GiB for activations, graphs and buffers"
        found.put(name, fraction, why, name)


def _captured(found: Derived) -> int:
    """Sequences of the largest captured batch."""
    command, machine = found.command, found.machine
    by_tp = "graph_batch" if command.value("tp", 1) >= 4 else "graph_batch_below_tp4"
    default = machine.defaults.by_memory(by_tp, machine.gpu)
    return int(decode_batch(command) or min(default, command.value("seats", default)))


def _tokens(found: Derived) -> int:
    """Tokens that the activations' memory grows with: the whole chunk; in decode, what the running requests verify."""
    command, defaults = found.command, found.machine.defaults
    if found.role == "decode":
        return int(command.value("seats", _captured(found)) * command.value("spec_tokens", 1))
    whole = command.value("chunk", defaults.chunk_tokens(found.machine.gpu))
    return int(
        whole if whole > 0 else command.value("max_prefill_tokens", defaults.get("whole_prompt_tokens"))
    )


def _captures_prompts(found: Derived) -> bool:
    """Whether graphs of prompts are captured, too."""
    command = found.command
    off = decode_off(command) or prompts_off(command)
    whole_steps = not off and not command.value("two_batch")
    return whole_steps and int(command.value("pp", 1)) == 1 and only_latents(found.machine.model)
