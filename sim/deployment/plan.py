"""The second stage of checking: does the deployment exist, divide and fit?

    Scenario -> names, divisions, formats (`Problem`s) -> per pool the plan of a worker and the memory of its GPUs

Every problem names the key that causes it, and all of them are raised at once.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from sim import catalog
from sim.catalog import Engine, Gpu, Model, Work
from sim.deployment.checks import name_problems, pool_experts, setting_problems, shape_problems
from sim.deployment.device import gpu_of
from sim.deployment.engine import engine_of
from sim.deployment.memory import MemoryBudget, budget_for
from sim.deployment.prefix_tiers import prefix_cache_problems
from sim.model import architecture
from sim.model.attention import chooses_keys
from sim.model.layout import exchanges_all_to_all
from sim.model.sharding import engine_sharding
from sim.scenario.errors import DeploymentError, Problem
from sim.scenario.schema import Scenario
from sim.units import GB_BYTES


@dataclass(frozen=True, slots=True)
class PoolPlan:
    """One pool of a deployment, resolved. Counts are per worker unless said otherwise."""

    role: str
    workers: int
    gpus: int
    tp: int
    ep: int
    redundant: int
    """Replicas of routed experts over the EP group."""
    max_sequences: int
    """Running sequences per attention-DP rank at most."""
    chunk_tokens: int
    """New prompt tokens per attention-DP rank and step at most."""
    memory: MemoryBudget

    @property
    def dp(self) -> int:
        """Attention-DP ranks."""
        return self.gpus // self.tp

    @property
    def moe_tp(self) -> int:
        """GPUs that share one routed expert."""
        return self.gpus // self.ep

    @property
    def total_gpus(self) -> int:
        """GPUs of the whole pool."""
        return self.workers * self.gpus


@dataclass(frozen=True, slots=True)
class Deployment:
    """A scenario's deployment, checked: it exists, divides and fits."""

    model: Model
    gpu: Gpu
    engine: Engine
    pools: Mapping[str, PoolPlan]

    @property
    def gpus(self) -> int:
        """GPUs of all pools."""
        return sum(plan.total_gpus for plan in self.pools.values())


def deploy(scenario: Scenario, profiles: Collection[str] | None = None) -> Deployment:
    """The checked deployment. `profiles`: shipped profile names, to check `profile` against (None: not checked).

    Raises DeploymentError with every problem: unknown names, what does not divide, formats that the GPU lacks, and
    pools whose memory does not suffice (how many GB are missing and which changes would fit).
    """
    problems = [*name_problems(scenario, profiles)]
    if not _nameless(problems):
        problems += setting_problems(scenario)
        for role in scenario.deployment.pools():
            problems += shape_problems(scenario, role) or _memory_problems(scenario, role)
    if not problems:
        pools = {role: _plan(scenario, role) for role in scenario.deployment.pools()}
        problems += prefix_cache_problems(scenario, {role: plan.memory for role, plan in pools.items()})
    if problems:
        raise DeploymentError(problems)
    return Deployment(
        model=catalog.model(scenario.model),
        gpu=gpu_of(scenario),
        engine=engine_of(scenario),
        pools=pools,
    )


def plan_pool(scenario: Scenario, role: str) -> PoolPlan:
    """The plan of one pool, whether its cache fits or not (`plan.memory.fits`).

    Raises DeploymentError where names are unknown, the profile is another GPU's, or the layout does not divide.
    """
    unusable = [problem for problem in name_problems(scenario) if problem.path[0] != "price"]
    if problems := unusable or shape_problems(scenario, role):
        raise DeploymentError(problems)
    return _plan(scenario, role)


def _nameless(problems: Iterable[Problem]) -> list[Problem]:
    """Unknown models and GPUs, without which nothing can be computed."""
    return [problem for problem in problems if problem.path in (("model",), ("gpu",))]


def _plan(scenario: Scenario, role: str) -> PoolPlan:
    pool = scenario.deployment.pools()[role]
    model, gpu, engine = (
        catalog.model(scenario.model),
        gpu_of(scenario),
        engine_of(scenario),
    )
    experts, _ = pool_experts(scenario, role)
    drafts = scenario.speculation.draft_tokens
    sequences = pool.max_batch_per_gpu * pool.tp
    chunk = pool.chunk_tokens or engine.chunk_for(gpu.memory_bytes)
    all_to_all = exchanges_all_to_all(pool.exchange, pool.gpus, pool.tp, pool.ep)
    weights = architecture.weight_bytes_per_gpu(
        model,
        gpus=pool.gpus,
        tp=pool.tp,
        redundant=experts.redundant,
        shared_as_slot=experts.shared_expert_as_slot,
        weights=scenario.precision.weights,
        attention=scenario.precision.attention_format,
        dense=scenario.precision.dense_format,
        mtp=drafts > 0,
        sharding=engine_sharding(engine, pool.gpus, pool.tp, all_to_all),
        absorbed=engine.absorbed_weights,
    )
    work = Work(
        role=role,
        memory_bytes=gpu.memory_bytes,
        gpus=pool.gpus,
        ranks=pool.gpus // pool.tp,
        all_to_all=all_to_all,
        chunk_tokens=chunk,
        sequences=sequences,
        drafts=drafts,
        prefill_graphs=gpu.generation == "hopper" and not chooses_keys(model),
    )
    reserve = engine.reserve.bytes(work)
    cache = (model, scenario.precision.kv_cache, drafts > 0, pool.tp)
    return PoolPlan(
        role=role,
        workers=pool.workers,
        gpus=pool.gpus,
        tp=pool.tp,
        ep=pool.ep,
        redundant=experts.redundant,
        max_sequences=sequences,
        chunk_tokens=chunk,
        memory=budget_for(
            engine,
            gpu.memory_bytes,
            sum(weights.values()),
            reserve,
            architecture.cache_bytes_per_token(*cache),
            pool.memory_fraction,
            architecture.cache_bytes_per_request(*cache),
        ),
    )


def _memory_problems(scenario: Scenario, role: str) -> list[Problem]:
    """A pool whose weights and reserve leave no room for a KV block."""
    memory = _plan(scenario, role).memory
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
    chunk = _plan(scenario, role).chunk_tokens
    shorter: list[Mapping[str, float]] = (
        [] if role == "decode" else [{"chunk_tokens": chunk // n} for n in (2, 4, 8)]
    )
    for kind in (fractions, shorter, sharded, wider):
        for update in kind:
            if _fits(_with_pool(scenario, role, update), role):
                yield ", ".join(f"{key} {value}" for key, value in update.items())
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
    return _plan(scenario, role).memory.fits
