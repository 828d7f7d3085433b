"""Does a pool fit into the memory of its GPUs, and if not, what would?"""

from collections.abc import Iterator, Mapping

from sim import catalog
from sim.catalog.engines import newer_releases
from sim.deployment.checks import setting_problems, shape_problems
from sim.deployment.pools import unchecked_pool
from sim.scenario.errors import Problem
from sim.scenario.schema import Scenario
from sim.units import GB_BYTES


def memory_problems(scenario: Scenario, role: str) -> list[Problem]:
    """A pool whose weights and reserve leave no room for a KV block."""
    memory = unchecked_pool(scenario, role).memory
    if memory.fits:
        return []
    changes = [*_what_would_fit(scenario, role)]
    weights, reserve, whole = (
        size / GB_BYTES for size in (memory.weights_bytes, memory.reserve_bytes, memory.memory_bytes)
    )
    message = (
        f"does not fit: {memory.missing_gb:.1f} GB missing on each GPU "
        f"(weights {weights:.1f} GB + reserve {reserve:.1f} GB of {whole:.1f} GB)"
    )
    advice = f"; would fit: {'; or '.join(changes)}" if changes else "; no smaller change fits"
    return [Problem(("deployment", role), message + advice)]


def _what_would_fit(scenario: Scenario, role: str) -> Iterator[str]:
    """Changes of one kind each that make the pool fit, smallest first."""
    pool = scenario.deployment.pools()[role]
    # The engine's own fraction leaves room for its defaults; operators raise it.
    fractions: list[Mapping[str, float]] = [
        {"memory_fraction": f} for f in (0.85, 0.9, 0.95) if pool.memory_fraction is None
    ]
    wider: list[Mapping[str, float]] = [{"gpus": pool.gpus * n, "ep": pool.ep * n} for n in (2, 4, 8, 16)]
    sharded: list[Mapping[str, float]] = [{"tp": pool.tp * n} for n in (2, 4, 8)]
    chunk = unchecked_pool(scenario, role).chunk_tokens
    shorter: list[Mapping[str, float]] = (
        [] if role == "decode" else [{"chunk_tokens": chunk // n} for n in (2, 4, 8)]
    )
    for kind in (fractions, shorter, sharded, wider):
        for update in kind:
            if _fits(_with_pool(scenario, role, update), role):
                yield ", ".join(f"{key} {value}" for key, value in update.items())
                break
    for release in newer_releases(scenario.engine, scenario.engine_version):
        if _fits(scenario.model_copy(update={"engine_version": release}), role):
            yield f'engine_version "{release}", which holds less'
            break
    larger = [name for name in catalog.gpu_names() if _fits(scenario.model_copy(update={"gpu": name}), role)]
    if larger:
        yield f"gpu {' or '.join(larger)}"


def _with_pool(scenario: Scenario, role: str, update: Mapping[str, float]) -> Scenario:
    pool = scenario.deployment.pools()[role].model_copy(update=dict(update))
    deployment = scenario.deployment.model_copy(update={role: pool})
    return scenario.model_copy(update={"deployment": deployment})


def _fits(scenario: Scenario, role: str) -> bool:
    if shape_problems(scenario, role) or any(setting_problems(scenario)):
        return False
    return unchecked_pool(scenario, role).memory.fits
