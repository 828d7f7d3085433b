"""Short hands for the tests of launch commands."""

from typing import Any

from sim.launch.read import Launch, read_launch

Pools = dict[str, tuple[int | None, ...]]
"""By role: workers, GPUs, TP, EP, seats per GPU, chunk."""


def launch(text: str, gpu: str = "h200", **more: Any) -> Launch:
    return read_launch(text, gpu, **more)


def pool(text: str, gpu: str = "h200", role: str = "serve", **more: Any) -> dict[str, Any]:
    return launch(text, gpu, **more).scenario["deployment"][role]


def at(data: dict[str, Any], path: str) -> Any:
    """The value at a dotted key; None where there is none."""
    node: Any = data
    for part in path.split("."):
        node = node.get(part) if isinstance(node, dict) else None
    return node


def pools_of(scenario: dict[str, Any]) -> Pools:
    keys = ("workers", "gpus", "tp", "ep", "max_batch_per_gpu", "chunk_tokens")
    return {role: tuple(one.get(key) for key in keys) for role, one in scenario["deployment"].items()}
