"""SGLang's CUDA graphs, by its flags: JSON of `--cuda-graph-config` wins over the others (fields/exec_.py)."""

from typing import Any

from sim.launch.arguments import Given
from sim.launch.command import Command


def decode_off(command: Command) -> str:
    """The flag that switches graphs of decode steps off; empty where they are on."""
    return _off(command, "decode", "no_graphs", "graph_backend_decode")


def prompts_off(command: Command) -> str:
    """The flag that switches graphs of steps with prompts off; empty where none does."""
    return _off(command, "prefill", "no_prompt_graphs", "graph_backend_prefill")


def prompt_tokens(command: Command) -> Given | None:
    """Tokens of the largest step with prompts that graphs launch, where a flag says so."""
    config = command.given("graph_config")
    most = _config(command, "prefill").get("max_bs")
    if config and isinstance(most, int) and not isinstance(most, bool) and most > 0:
        return Given(most, config.said, config.place)
    return command.given("prompt_graph_tokens")


def decode_batch(command: Command) -> int | None:
    """The largest batch of decode steps that is captured, where a flag says so."""
    most = _config(command, "decode").get("max_bs")
    whole = isinstance(most, int) and not isinstance(most, bool) and most > 0
    found: int | None = most if whole else command.value("graph_batch")
    return found


def others(command: Command) -> str:
    """The flags whose parts beside these are not read; empty where there are none."""
    known = {"decode": {"backend", "max_bs"}, "prefill": {"backend", "max_bs"}}
    config: dict[str, Any] = command.value("graph_config") or {}
    beside = [phase for phase in config if set(_config(command, phase)) - known.get(phase, set())]
    return command.said("graph_config") if beside else ""


def _off(command: Command, phase: str, switch: str, backend: str) -> str:
    said = _config(command, phase).get("backend")
    if said is not None:
        return command.said("graph_config") if str(said).lower() == "disabled" else ""
    if str(command.value(backend, "")).lower() == "disabled":
        return command.said(backend)
    return command.said(switch) if command.value(switch) else ""


def _config(command: Command, phase: str) -> dict[str, Any]:
    found = (command.value("graph_config") or {}).get(phase)
    return found if isinstance(found, dict) else {}
