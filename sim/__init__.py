"""Tokenworks: throughput, latency and price of serving a language model on a GPU cluster.

    import sim

    scenario = sim.load("scenarios/chat.yaml", ["deployment.decode.max_batch_per_gpu=64"])
    result = sim.simulate(scenario, seed=1)
    print(result.json()["cost"]["usd_per_million"])

Everything heavy is imported on first use, so that `import sim` costs nothing.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sim.launch.read import Launch
    from sim.result import Result
    from sim.scenario.schema import Scenario

__all__ = ["load", "read_launch", "simulate"]


def load(path: str | Path, overrides: Sequence[str] = ()) -> "Scenario":
    """The scenario in a YAML file, with overrides `key.path=value` on top, checked in form and deployment.

    Raises ScenarioError with every problem found: its file, line, column, key and what was expected.
    """
    from sim.cost.profile import shipped_profiles
    from sim.model.deployment import deploy
    from sim.scenario.loading import load as read

    loaded = read(path, overrides)
    with loaded.locating():
        deploy(loaded.scenario, shipped_profiles())
    return loaded.scenario


def simulate(
    scenario: "Scenario", seed: int = 0, progress: Callable[[int, int], None] | None = None
) -> "Result":
    """Run the scenario to its end; the same seed gives the same result. `progress` is told (requests done, of all).

    Raises DeploymentError where the deployment is impossible, ScenarioError where a file it names is broken.
    """
    from sim.simulation import simulate as run

    return run(scenario, seed, progress=progress)


def read_launch(text: str, gpu: str, nodes: int | None = None, engine_version: str | None = None) -> "Launch":
    """What launch commands of vLLM, SGLang or TensorRT-LLM say: a scenario, with the flag behind each of its keys.

    Raises ScenarioError with the place in `text` of what is wrong, and UnknownName for the GPU.
    """
    from sim.launch.read import read_launch as read

    return read(text, gpu, nodes, engine_version)
