"""Tokenworks: throughput, latency and price of serving a language model on a GPU cluster.

    import sim

    scenario = sim.load("scenarios/chat.yaml", {"gpu": "b200", "duration_s": 120})
    print(sim.estimate(scenario).json()["capacity"])        # at once, without queues

    result = sim.simulate(scenario, seed=1)
    print(result.json()["cost"]["usd_per_million"])
    print(result.requests[["arrival_s", "ttft_s", "tpot_s"]].describe())   # a pandas table, one row per request
    result.save("out/chat")
    print(sim.load_result("out/chat").json()["latency"])

A scenario is also the name of a file or a dictionary with the same keys: `sim.simulate("scenarios/chat.yaml")`.
Everything heavy is imported on first use, so that `import sim` costs nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from sim.launch.read import Launch
    from sim.planner.plan import Plan
    from sim.result import Result, SavedResult
    from sim.scenario.schema import Scenario
    from sim.steady import SteadyState

__all__ = ["estimate", "load", "load_result", "plan", "read_launch", "simulate", "sweep"]


def load(
    source: "str | Path | Mapping[str, Any] | Scenario", overrides: Sequence[str] | Mapping[str, Any] = ()
) -> "Scenario":
    """A scenario from a YAML file or from a dictionary, checked in form and deployment.

    `overrides` go on top: texts `key.path=value`, or a dictionary of dotted keys. Files that a dictionary names are
    looked for in the working folder.
    Raises ScenarioError with every problem found: its file, line, column, key and what was expected.
    """
    from sim.catalog.profiles import shipped_profiles
    from sim.deployment.plan import deploy
    from sim.scenario.loading import apply, from_data
    from sim.scenario.loading import load as read
    from sim.scenario.schema import Scenario

    texts = () if isinstance(overrides, Mapping) else overrides
    if isinstance(source, Scenario):
        loaded = from_data(source.model_dump(mode="json", exclude_defaults=True), texts)
    else:
        loaded = from_data(source, texts) if isinstance(source, Mapping) else read(source, texts)
    if isinstance(overrides, Mapping) and overrides:
        loaded = apply(loaded, overrides)
    with loaded.locating():
        deploy(loaded.scenario, shipped_profiles())
    return loaded.scenario


def simulate(
    scenario: "str | Path | Mapping[str, Any] | Scenario",
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> "Result":
    """Run a scenario (or what `load` takes) to its end; the same seed gives the same result.

    `progress` is told (requests done, of all). The result's JSON also has the estimate's `capacity` and `limited_by`.
    Raises DeploymentError where the deployment is impossible, ScenarioError where the scenario or a file that it names
    is broken.
    """
    from sim.simulation import simulate as run
    from sim.steady import steady

    checked = _checked(scenario)
    result = run(checked, seed, progress=progress)
    result.outlook_from(lambda: steady(checked).outlook())
    return result


def estimate(scenario: "str | Path | Mapping[str, Any] | Scenario") -> "SteadyState":
    """The steady state of a scenario (or of what `load` takes) by equations: means in about half a second, no queues.

    `.json()` has the figures under the names of a run's JSON; `.curve` goes from light load to capacity.
    Raises what `simulate` raises, for the same reasons.
    """
    from sim.steady import steady

    return steady(_checked(scenario))


def sweep(
    file: str | Path, out: str | Path, seed: int = 0, workers: int = 1, ray: str | None = None
) -> "pd.DataFrame":
    """Every point of a sweep file, one row each; `out` keeps them, and what it holds is not run again.

    Raises ScenarioError where the file or its base is broken; a point that cannot run is a row with its `error`.
    """
    from sim.planner.points import load_sweep
    from sim.planner.sweep import run_sweep

    return run_sweep(load_sweep(file), Path(out), seed, workers, ray)


def plan(
    file: str | Path,
    seed: int = 0,
    workers: int | None = 1,
    progress: Callable[[int, int], None] | None = None,
) -> "Plan":
    """The cheapest deployment that keeps the objectives of a plan file: `.json()` the answer, `.scenario` the winner.

    `workers`: processes, None for one per core; they change no figure. `progress` is told (simulated requests, of all
    as far as is known). Raises ScenarioError where the file or its base is broken, DeploymentError where nothing can be
    built or sized.
    """
    from sim.planner.plan import plan_file

    return plan_file(file, seed, workers, progress)


def load_result(folder: str | Path) -> "SavedResult":
    """The result that `Result.save`, or `--out`, left in a folder.

    Raises FileNotFoundError where a file of it is missing, ValueError where one is not what `save` wrote.
    """
    from sim.result import load as read

    return read(folder)


def read_launch(text: str, gpu: str, nodes: int | None = None, engine_version: str | None = None) -> "Launch":
    """What launch commands of vLLM, SGLang or TensorRT-LLM say: a scenario, with the flag behind each of its keys.

    Raises ScenarioError with the place in `text` of what is wrong, and UnknownName for the GPU.
    """
    from sim.launch.read import read_launch as read

    return read(text, gpu, nodes, engine_version)


def _checked(scenario: "str | Path | Mapping[str, Any] | Scenario") -> "Scenario":
    from sim.scenario.schema import Scenario

    return scenario if isinstance(scenario, Scenario) else load(scenario)
