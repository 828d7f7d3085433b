"""From the files that a command names to scenarios that are sound, and to their results."""

import itertools
import json
from collections.abc import Container, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sim
from sim.cli.files import COMPARISON, PAGE, RESULT, SCENARIO, prepare, spare
from sim.cli.terminal import Screen
from sim.scenario.errors import LocatedProblem, ScenarioError
from sim.units import GB_BYTES

if TYPE_CHECKING:
    from sim.deployment.plan import Deployment
    from sim.deployment.pools import PoolPlan
    from sim.result import Result
    from sim.scenario.loading import LoadedScenario
    from sim.scenario.schema import Scenario


def deployed(path: Path, sets: list[str] | None) -> "tuple[LoadedScenario, Deployment]":
    """A scenario that passed both stages."""
    from sim.deployment.plan import deploy
    from sim.scenario.loading import load

    loaded = load(path, sets or ())
    with loaded.locating():
        return loaded, deploy(loaded.scenario, profiles(loaded.scenario))


def profiles(scenario: "Scenario") -> tuple[str, ...] | None:
    """The profiles that the scenario may name; None where it names none, since reading them takes a while."""
    if scenario.profile is None:
        return None
    from sim.catalog.profiles import shipped_profiles

    return shipped_profiles()


def note_profile(name: str, deployment: "Deployment", screen: Screen) -> None:
    """Say so where nothing measured stands behind a scenario that did not ask for that."""
    if deployment.profile is None and not deployment.profile_named:
        of = f"{deployment.gpu.name} and {deployment.engine.name}"
        screen.note(f"{name}: no measured profile for {of}; priced analytically")


def simulated(
    paths: list[Path],
    sets: list[str] | None,
    seed: int,
    out: Path | None,
    screen: Screen,
    several: bool = False,
) -> "dict[str, Result]":
    """The result of each scenario by name. All are checked before the first one runs. `several`: of a comparison, which
    gives each a folder in `out`."""
    from sim.scenario.other_gpu import price_of_another_gpu

    loaded: dict[str, tuple[LoadedScenario, Deployment]] = {}
    problems: list[LocatedProblem] = []
    for path in paths:
        try:
            loaded[_name(path, loaded)] = deployed(path, sets)
        except ScenarioError as error:
            problems += error.problems
    if problems:
        raise ScenarioError(problems)
    if out:
        of_runs = (COMPARISON, PAGE, *(f"{name}/{file}" for name in loaded for file in (SCENARIO, RESULT)))
        read = (Path(source) for one, _ in loaded.values() for source in one.sources)
        spare((*paths, *read), [out / file for file in (of_runs if several else (SCENARIO, RESULT, PAGE))])
        prepare(out)
    results = {}
    for name, (one, deployment) in loaded.items():
        note_profile(name, deployment, screen)
        for note in price_of_another_gpu(one):
            screen.note(f"{name}: {note}")
        with screen.progress(name) as tick, one.locating():
            results[name] = sim.simulate(one.scenario, seed, tick)
        for note in results[name].json()["notes"]:  # with what the estimate has to say
            screen.note(f"{name}: {note}")
    return results


def _name(path: Path, taken: Container[str]) -> str:
    """The file's name without folder and suffix, numbered where another has it; it is a folder's name, too, which must
    not lead out of `--out` as `..` would."""
    stem = path.stem.strip(".").encode("utf-8", "replace").decode() or "scenario"  # some names are no text
    names = itertools.chain([stem], (f"{stem}-{n}" for n in itertools.count(2)))
    return next(name for name in names if name not in taken and name not in (COMPARISON, PAGE))


def pool(plan: "PoolPlan") -> dict[str, Any]:
    """One pool as `check` shows it: its layout, and the memory of one of its GPUs."""
    layout = {key: getattr(plan, key) for key in ("workers", "gpus", "dp", "tp", "ep")}
    sizes = {
        key: getattr(plan.memory, f"{key}_bytes") / GB_BYTES for key in ("weights", "reserve", "kv_cache")
    }
    taken = {
        "kv_bytes_per_token": plan.memory.cache_bytes_per_token,
        "kv_tokens_per_request": plan.memory.request_blocks * plan.memory.block_tokens,
    }
    return {
        **layout,
        **{f"{key}_gb": size for key, size in sizes.items()},
        "kv_tokens": plan.memory.kv_tokens,
        **(taken if plan.layout.model.compressed else {}),
        "seats": plan.max_sequences,
        "seats_from": plan.max_sequences_from,
    }


def public_prices(results: "Mapping[str, Result]") -> dict[str, list[dict[str, Any]]]:
    """Public API prices of each model that ran."""
    from sim.api_prices import api_prices

    models = dict.fromkeys(result.record.scenario.model for result in results.values())
    return {model: json.loads(api_prices(model).to_json(orient="records")) for model in models}
