"""SGLang's flags of the routed experts: kernels, replicas and how they are placed."""

from typing import Any, Final

from sim.launch import kernels
from sim.launch.derived import Derived, balances, replicas
from sim.launch.sglang_exchange import exchange_of, named

OLD: Final = {"trtllm_moe": "flashinfer_trtllm", "cutlass_moe": "flashinfer_cutlass"}
"""Switches of older releases -> the kernels that they name."""
UNREAD: Final = (
    "how replicas are placed, chosen and moved is set in `experts` (rebalance_every_steps, staleness_rho); what the "
    "flag names is not read"
)


def read(found: Derived) -> None:
    """Kernels and replicas of the experts."""
    command = found.command
    if not found.machine.model.n_routed:
        return
    asked = next(
        (name for setting, name in OLD.items() if command.value(setting)), command.value("moe_backend", "")
    )
    said = command.said("moe_backend", *OLD)
    if kernels.exchange(a2a := exchange_of(command)):
        asked, said = a2a, named(command)
    kernels.read(found, asked, said)
    _placement(found)


def _placement(found: Derived) -> None:
    """Replicas as EPLB places them, from its own counts or those of a file; without either the first experts have them
    (expert_location.py, init_trivial), and tokens reach them only by --ep-dispatch-algorithm, which the other two set
    (server_args.py, _handle_eplb_and_dispatch)."""
    command = found.command
    redundant = int(command.value("redundant", 0))
    balanced = balances(found, "experts over several GPUs: --ep-size or --moe-a2a-backend")
    location: Any = command.value("location", "trivial")
    if location != "trivial":
        found.tell(command.said("location"), UNREAD)
    if command.value("dispatch"):
        found.tell(command.said("dispatch"), UNREAD)
    static = not balanced and location == "trivial"
    if redundant and static and not command.value("dispatch"):
        why = (
            "without --enable-eplb or --ep-dispatch-algorithm no token is sent to the replicas; "
            "priced as if all copies of an expert shared its tokens"
        )
        found.tell(command.said("redundant"), why)
    replicas(found, redundant, balanced, command.said("redundant", "eplb"), static=static)
