"""One pool of a scenario, resolved: its workers, how they shard the model, and the memory of their GPUs."""

from collections.abc import Mapping
from dataclasses import dataclass

from sim.catalog import Engine, Gpu, Work
from sim.deployment.checks import pool_experts
from sim.deployment.device import gpu_of
from sim.deployment.drafts import drafting_model
from sim.deployment.engine import engine_of
from sim.deployment.held import cache_taken, uncounted_drafts, weights_held
from sim.deployment.layouts import graph_tokens, pool_layouts
from sim.deployment.memory import MemoryBudget, budget_for
from sim.deployment.seats import seats_of
from sim.model.attention import chooses_keys
from sim.model.layout import Layout, Phase
from sim.scenario.errors import KeyPath
from sim.scenario.schema import Experts, Pool, Scenario


@dataclass(frozen=True, slots=True)
class PoolPlan:
    """One pool of a deployment, resolved. Counts are per worker unless said otherwise."""

    role: str
    workers: int
    layouts: Mapping[Phase, Layout]
    """How a worker shards the model in each phase that the pool does."""
    experts: Experts
    """How the routed experts are placed, and how unevenly tokens choose them."""
    experts_at: KeyPath
    """The scenario's key that says so."""
    max_sequences: int
    """Running sequences per attention-DP rank at most."""
    max_sequences_from: str
    """The scenario's key that says so, or the engine that is shipped so."""
    chunk_tokens: int
    """New prompt tokens per attention-DP rank and step at most."""
    graph_tokens: int
    """Largest step with prompts, in tokens of a rank, that CUDA graphs launch; see `sim.deployment.layouts`."""
    memory: MemoryBudget

    @property
    def layout(self) -> Layout:
        """Of either phase, for what is the same in both: GPUs, ranks, formats, kernels of the experts."""
        return next(iter(self.layouts.values()))

    @property
    def gpus(self) -> int:
        """GPUs."""
        return self.layout.gpus

    @property
    def tp(self) -> int:
        """GPUs of an attention-DP rank."""
        return self.layout.tp

    @property
    def ep(self) -> int:
        """Ranks that the routed experts are spread over."""
        return self.layout.ep

    @property
    def dp(self) -> int:
        """Attention-DP ranks."""
        return self.layout.dp

    @property
    def total_gpus(self) -> int:
        """GPUs of the whole pool."""
        return self.workers * self.gpus


def unchecked_pool(scenario: Scenario, role: str) -> PoolPlan:
    """The pool of that role, whether its cache fits or not. Its names must be known and its layout must divide."""
    pool = scenario.deployment.pools()[role]
    model, gpu, engine = drafting_model(scenario), gpu_of(scenario), engine_of(scenario)
    layouts = pool_layouts(scenario, role, model, gpu, engine)
    experts, experts_at = pool_experts(scenario, role)
    sequences, said_by = seats_of(
        pool, role, engine, gpu, scenario.speculation.draft_tokens, model.compressed
    )
    chunk = pool.chunk_tokens or engine.chunk_for(gpu.memory_bytes, pool.gpus // pool.tp)
    work = Work(
        role=role,
        memory_bytes=gpu.memory_bytes,
        gpus=pool.gpus,
        ranks=pool.gpus // pool.tp,
        all_to_all=next(iter(layouts.values())).all_to_all,
        chunk_tokens=pool.chunk_tokens or engine.whole_chunk_for(gpu.memory_bytes),
        sequences=sequences,
        drafts=scenario.speculation.draft_tokens,
        prefill_graphs=gpu.generation == "hopper" and not chooses_keys(model),
    )
    return PoolPlan(
        role=role,
        workers=pool.workers,
        layouts=layouts,
        experts=experts,
        experts_at=experts_at,
        max_sequences=sequences,
        max_sequences_from=said_by,
        chunk_tokens=chunk,
        graph_tokens=graph_tokens(scenario, engine, layouts["prefill"]) if "prefill" in layouts else 0,
        memory=_memory(gpu, engine, pool, next(iter(layouts.values())), experts, work),
    )


def _memory(
    gpu: Gpu, engine: Engine, pool: Pool, layout: Layout, experts: Experts, work: Work
) -> MemoryBudget:
    """What the memory of one of the pool's GPUs is spent on."""
    taken = cache_taken(engine, layout, work.sequences)
    return budget_for(
        engine,
        gpu.memory_bytes,
        weights_held(engine, gpu, layout, experts.redundant),
        engine.reserve.bytes(work),
        taken.token_bytes,
        pool.memory_fraction,
        taken.request_bytes,
        taken.seats_bytes,
        uncounted_drafts(engine, gpu, layout, experts.redundant),
    )
