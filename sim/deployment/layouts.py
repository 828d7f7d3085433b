"""How the workers of a pool shard the model, by phase."""

from sim.catalog import Engine, Gpu, Model
from sim.deployment.checks import pool_experts
from sim.frozen import Frozen
from sim.model.attention import chooses_keys
from sim.model.layout import Layout, Phase, exchanges_all_to_all
from sim.model.sharding import engine_sharding
from sim.scenario.schema import Scenario

PHASES: dict[str, tuple[Phase, ...]] = {
    "prefill": ("prefill",),
    "decode": ("decode",),
    "serve": ("prefill", "decode"),
}
"""What each kind of pool does."""


def pool_layouts(
    scenario: Scenario, role: str, model: Model, gpu: Gpu, engine: Engine
) -> Frozen[Phase, Layout]:
    """How a worker of the pool shards the model, in the engine's way for each phase that the pool does."""
    return Frozen({phase: _layout(scenario, role, phase, model, gpu, engine) for phase in PHASES[role]})


def _layout(scenario: Scenario, role: str, phase: Phase, model: Model, gpu: Gpu, engine: Engine) -> Layout:
    pool, precision = scenario.deployment.pools()[role], scenario.precision
    experts, _ = pool_experts(scenario, role)
    all_to_all = exchanges_all_to_all(pool.exchange, pool.gpus, pool.tp, pool.ep)
    quantised = precision.weights == "nvfp4" and engine.quantised_gather in ("any", pool.moe_backend)
    return Layout(
        model=model,
        gpus=pool.gpus,
        tp=pool.tp,
        ep=pool.ep,
        gpus_per_node=gpu.scale_up_domain,
        weights=precision.weights,
        attention_weights=precision.attention_format,
        dense_weights=precision.dense_format,
        kv_cache=precision.kv_cache,
        dense_prefill_max_kv=engine.dsa_dense_threshold,
        index_logits_bytes=engine.index_logits_bytes,
        dispatch_mode=engine.decode_dispatch if phase == "decode" else engine.prefill_dispatch,
        exchange=pool.exchange or "all_to_all",
        gathered_by=engine.prompts_gathered_by if phase == "prefill" and not quantised else "all_gather",
        quantised_gather=quantised or phase == "decode",
        moe_backend=pool.moe_backend,
        experts_factor=_experts_factor(scenario, role, gpu, engine) if role == "prefill" else 1.0,
        whole_batch_experts=pool.moe_backend == engine.whole_batch_experts,
        shared_as_slot=experts.shared_expert_as_slot,
        mtp=scenario.speculation.draft_tokens > 0,
        sharding=engine_sharding(engine, pool.gpus, pool.tp, all_to_all),
    )


def _experts_factor(scenario: Scenario, role: str, gpu: Gpu, engine: Engine) -> float:
    """See `prompt_pool_experts`; of the kernels that price, so of `normal_mode_experts` where no back-end is named."""
    pool = scenario.deployment.pools()[role]
    exchanged = exchanges_all_to_all(pool.exchange, pool.gpus, pool.tp, pool.ep)
    handed = exchanged and engine.prefill_dispatch == "normal" and scenario.precision.weights == "fp8"
    backend = pool.moe_backend or (engine.normal_mode_experts if handed else "")
    name, weights = f"{gpu.generation} {backend}", scenario.precision.weights
    names = (f"{name} {weights} ep" if pool.ep > 1 else "", f"{name} {weights}", name)
    known = engine.prompt_pool_experts
    return next((known[one] for one in names if one in known), 1.0)


def graph_tokens(scenario: Scenario, engine: Engine, layout: Layout) -> int:
    """Largest step with prompts, in tokens of a rank, that piecewise CUDA graphs launch in this deployment."""
    excluded = {
        "attention_dp": layout.dp > 1,
        "all_to_all": layout.all_to_all,
        "disaggregated": "prefill" in scenario.deployment.pools(),
        "speculation": scenario.speculation.draft_tokens > 0,
        "sparse_attention": chooses_keys(layout.model),
    }
    if not engine.cuda_graphs or any(excluded[name] for name in engine.prefill_graph_excludes):
        return 0
    return engine.prefill_graph_tokens
