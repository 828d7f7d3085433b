"""How SGLang's experts get their tokens, by its flags."""

from typing import Final

from sim.launch.command import Command

MEGA_MOE: Final = "megamoe"
NAMED: Final = ("a2a", "deepep_moe", "mega_moe", "moe_backend")
"""Settings that name an exchange. `--moe-runner-backend megamoe` is another name for `--moe-a2a-backend megamoe`
(mega_moe_hook.py), and so was SGLANG_OPT_USE_DEEPGEMM_MEGA_MOE (server_args.py, 0.5.12 to 0.5.14)."""


def exchange_of(command: Command) -> str:
    """The all-to-all back-end that a command names; `none` without one."""
    by_variable = str(command.value("mega_moe", "")).lower() in ("1", "true", "yes", "y")
    if by_variable or str(command.value("moe_backend", "")).lower() == MEGA_MOE:
        return MEGA_MOE
    return "deepep" if command.value("deepep_moe") else str(command.value("a2a", "none")).lower()


def named(command: Command) -> str:
    """The flags behind it."""
    fused = exchange_of(command) == MEGA_MOE
    return command.said(*(("mega_moe", "a2a") if fused else ("deepep_moe", "a2a"))) or command.said(
        "moe_backend"
    )
