"""What is wrong with a scenario before anything is computed: names, formats, and what does not divide."""

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Final

from sim import catalog
from sim.catalog import Model
from sim.deployment.anchored import anchor_problems
from sim.deployment.device import gpu_of
from sim.deployment.drafts import draft_chances
from sim.deployment.engine import engine_of
from sim.deployment.profile_choice import profile_problems
from sim.kernels.formats import BLOCK, INT4_BLOCK, MXFP4_BLOCK, NVFP4_BLOCK
from sim.model.attention import kinds, only_latents
from sim.model.attention.csa import FP4_INDEX, Csa
from sim.model.layout import exchanges_all_to_all
from sim.model.sharding import engine_sharding
from sim.scenario.errors import KeyPath, Problem, ScenarioError, did_you_mean
from sim.scenario.gpu_file import is_gpu_file
from sim.scenario.schema import Experts, Pool, Scenario

WHOLE_BLOCK: Final = {"bf16": 1, "fp8": BLOCK, "mxfp4": MXFP4_BLOCK, "nvfp4": NVFP4_BLOCK, "int4": INT4_BLOCK}
"""Elements that a sharded width must be a multiple of, so that no block of a format is cut."""


def name_problems(scenario: Scenario, profiles: Collection[str] | None = None) -> Iterator[Problem]:
    """Names that the catalog does not hold, and profiles of other devices."""
    look_ups: tuple[tuple[str, Callable[[], object]], ...] = (
        ("model", lambda: catalog.model(scenario.model)),
        ("gpu", lambda: gpu_of(scenario)),
    )
    for key, look_up in look_ups:
        try:
            look_up()
        except ScenarioError:
            raise  # a file of its own, with places of its own
        except (catalog.UnknownName, catalog.ConfigError, ValueError) as unusable:
            yield Problem((key,), str(unusable))
        else:
            if key == "gpu":
                yield from anchor_problems(scenario)
                yield from _price_problems(scenario)
                yield from profile_problems(scenario, profiles)
                yield from _cache_problems(scenario)


def _price_problems(scenario: Scenario) -> Iterator[Problem]:
    """A tier that the GPU does not have, or no price at all."""
    tiers, tier = catalog.price_tiers(gpu_of(scenario).name), scenario.price.tier
    gpu = gpu_of(scenario).name if is_gpu_file(scenario.gpu) else scenario.gpu
    reserved = scenario.price.reserved.tier if scenario.price.reserved else None
    for path, name in ((("price", "tier"), tier), (("price", "reserved", "tier"), reserved)):
        if name is not None and tiers and name not in tiers:
            yield Problem(path, _no_such_tier(gpu, name, tiers))
    if not tiers and reserved is not None:
        says = f"the catalog has no price of {gpu}; give price.reserved.usd_per_gpu_hour"
        yield Problem(("price", "reserved", "tier"), says)
    if not tiers and scenario.price.usd_per_gpu_hour is None and scenario.price.hours is None:
        key = "usd_per_gpu_hour" if tier is None else "tier"
        yield Problem(("price", key), f"the catalog has no price of {gpu}; give price.usd_per_gpu_hour")


def _no_such_tier(gpu: str, name: str, tiers: Mapping[str, float]) -> str:
    """The GPU's own tiers with their prices: of one that another GPU has none is the nearest by its letters."""
    own = ", ".join(f"{tier} (${usd:.2f} per GPU-hour)" for tier, usd in tiers.items())
    if name in catalog.tier_names():
        return f"{gpu} has no price of tier '{name}'; expected one of {own}"
    return f"unknown price tier of {gpu} '{name}'; expected one of {own}{did_you_mean(name, tiers)}"


def _cache_problems(scenario: Scenario) -> Iterator[Problem]:
    """Index keys in FP4 where the model or the GPU has none."""
    if scenario.precision.kv_cache != FP4_INDEX:
        return
    try:
        fits = any(isinstance(kind, Csa) for kind, _ in kinds(catalog.model(scenario.model)))
    except (catalog.UnknownName, ValueError):
        return  # a problem of its own
    gpu = gpu_of(scenario)
    if not fits or gpu.fp4_flop_per_s is None:
        yield Problem(
            ("precision", "kv_cache"),
            f"{FP4_INDEX} is for V4's index keys on GPUs with FP4 arithmetic, not for {scenario.model} on {gpu.name}; "
            "expected fp8 or bf16",
        )


def setting_problems(scenario: Scenario) -> Iterator[Problem]:
    """What the model or the GPU cannot do at all."""
    model, gpu = catalog.model(scenario.model), gpu_of(scenario)
    for key in ("weights", "dense"):
        if getattr(scenario.precision, key) == "nvfp4" and gpu.fp4_flop_per_s is None:
            yield Problem(("precision", key), f"{gpu.name} has no FP4 arithmetic; expected fp8 or bf16")
    speculation = scenario.speculation
    if speculation.method == "dspark" and not model.dspark_modules:
        drafted = [name for name in catalog.model_names() if catalog.model(name).dspark_modules]
        yield Problem(
            ("speculation", "method"),
            f"no DSpark drafter of {model.name} is described; expected mtp, or {' or '.join(drafted)}",
        )
    if speculation.draft_tokens and not model.nextn:
        yield Problem(("speculation", "draft_tokens"), f"{model.name} has no MTP module; expected 0")
    given = speculation.acceptance
    if given is not None and len(given) < speculation.draft_tokens:
        yield Problem(
            ("speculation", "acceptance"),
            f"{len(given)} chances for {speculation.draft_tokens} draft tokens; expected one for each",
        )
    if given is None and speculation.draft_tokens and model.nextn:
        yield from _acceptance_problems(scenario)


def _acceptance_problems(scenario: Scenario) -> Iterator[Problem]:
    """No accept length is published for the model, or for the task that the scenario names."""
    speculation = scenario.speculation
    known = catalog.acceptance_tasks(scenario.model, speculation.method)
    if not known:
        yield Problem(
            ("speculation", "acceptance"),
            f"no accept length of {scenario.model} is published; expected the chance that each draft is accepted, "
            f"one number for each of {speculation.draft_tokens} drafts",
        )
        return
    longest = catalog.longest_block(scenario.model)
    if speculation.method == "dspark" and speculation.draft_tokens > longest:
        yield Problem(
            ("speculation", "draft_tokens"),
            f"published blocks of more than {longest} drafts make no more tokens than one of {longest}; "
            f"expected at most {longest}, or `acceptance`",
        )
    try:
        draft_chances(scenario)
    except catalog.UnknownName as unknown:
        key = "thinking" if speculation.task is None else "task"
        yield Problem(("speculation", key), str(unknown))


def shape_problems(scenario: Scenario, role: str) -> list[Problem]:
    """What does not divide in one pool: the first problem of each key."""
    first: dict[KeyPath, Problem] = {}
    for problem in _divisions(scenario, role):
        first.setdefault(problem.path, problem)
    return list(first.values())


def _divisions(scenario: Scenario, role: str) -> Iterator[Problem]:
    """What does not divide."""
    pool, model = scenario.deployment.pools()[role], catalog.model(scenario.model)
    at: KeyPath = ("deployment", role)
    for key, size in (("tp", pool.tp), ("ep", pool.ep)):
        if pool.gpus % size:
            yield Problem(
                (*at, key), f"{key} {size} does not divide gpus {pool.gpus}; {_divisors(pool.gpus)}"
            )
    if model.heads % pool.tp:
        yield Problem((*at, "tp"), f"tp {pool.tp} does not divide the {model.heads} heads of {model.name}")
    elif not only_latents(model) and max(pool.tp, model.kv_heads) % min(pool.tp, model.kv_heads):
        yield Problem(
            (*at, "tp"),
            f"tp {pool.tp} and the {model.kv_heads} key-value heads of {model.name} do not divide",
        )
    yield from _width_problems(scenario, pool, model, at)
    yield from _expert_problems(scenario, role, at)


def _expert_problems(scenario: Scenario, role: str, at: KeyPath) -> Iterator[Problem]:
    """Slots that do not divide, a gate or a placement that the model and the nodes do not have."""
    pool, model = scenario.deployment.pools()[role], catalog.model(scenario.model)
    experts, where = pool_experts(scenario, role)
    shared = int(experts.shared_expert_as_slot)
    slots = model.n_routed + shared + experts.redundant
    if slots % pool.ep:
        as_slot = ", the shared one" if shared else ""
        yield Problem(
            (*where, "redundant") if experts.redundant else (*at, "ep"),
            f"ep {pool.ep} of {role} does not divide {slots} expert slots ({model.n_routed} routed{as_slot}, "
            f"{experts.redundant} redundant); redundant {-(model.n_routed + shared) % pool.ep} would do",
        )
    if experts.node_limit is not None and experts.node_limit > model.n_group:
        yield Problem(
            (*where, "node_limit"),
            f"{model.name} has {model.n_group} group(s) of experts; expected at most that many nodes",
        )
    if shared and model.n_shared != 1:
        yield Problem(
            (*where, "shared_expert_as_slot"),
            f"{model.name} has {model.n_shared} shared experts; expected one, of the routed ones' size",
        )
    yield from _placement_problems(scenario, pool, model, experts, where)


def _placement_problems(
    scenario: Scenario, pool: Pool, model: Model, experts: Experts, where: KeyPath
) -> Iterator[Problem]:
    """A hierarchical placement that nodes cut, or nothing that could be re-balanced."""
    domain = max(1, gpu_of(scenario).scale_up_domain * pool.ep // pool.gpus)
    nodes = -(-pool.ep // domain)
    wholes = {"groups of experts": model.n_group, "ranks": pool.ep, "redundant slots": experts.redundant}
    cut = [f"{total} {name}" for name, total in wholes.items() if total % nodes]
    if experts.placement == "hierarchical" and cut:
        yield Problem(
            (*where, "placement"),
            f"hierarchical gives every node whole groups and equal shares; {nodes} nodes do not divide "
            f"{' and '.join(cut)}",
        )
    if experts.placement == "hierarchical" and experts.shared_expert_as_slot and nodes > 1:
        yield Problem(
            (*where, "placement"), "hierarchical places whole groups; the shared expert belongs to none"
        )
    in_order = experts.placement == "contiguous" or (experts.placement is None and not experts.redundant)
    if experts.rebalance_every_steps is not None and in_order:
        yield Problem(
            (*where, "rebalance_every_steps"),
            "experts stand in their own order, which no load changes; expected placement global or hierarchical",
        )


def _width_problems(scenario: Scenario, pool: Pool, model: Model, at: KeyPath) -> Iterator[Problem]:
    """Widths that a shard would cut inside a block of the number format."""
    weights, dense = scenario.precision.weights, scenario.precision.dense_format
    all_to_all = exchanges_all_to_all(pool.exchange, pool.gpus, pool.tp, pool.ep)
    over_gpus = engine_sharding(engine_of(scenario), pool.gpus, pool.tp, all_to_all)
    shards: list[tuple[str, str, int, int, str]] = [
        ("ep", "routed experts", model.moe_inter, max(1, pool.gpus // pool.ep), weights)
    ]
    if model.n_shared:
        width, over = model.n_shared * model.moe_inter, over_gpus.shared
        shards.append(("tp" if over == pool.tp else "gpus", "shared expert", width, over, dense))
    if model.dense_layers:
        over = over_gpus.dense_ffn
        shards.append(("tp" if over == pool.tp else "gpus", "dense FFN", model.dense_inter, over, dense))
    for key, name, width, over, format_name in shards:
        if over > 1 and width % (over * WHOLE_BLOCK[format_name]):
            yield Problem(
                (*at, key),
                f"width {width} of the {name} does not divide over {over} GPUs in whole blocks of "
                f"{WHOLE_BLOCK[format_name]} ({format_name})",
            )


def _divisors(number: int) -> str:
    return "expected one of " + ", ".join(str(d) for d in range(1, number + 1) if number % d == 0)


def pool_experts(scenario: Scenario, role: str) -> tuple[Experts, KeyPath]:
    """How the pool places its experts, and the key that says so."""
    own = scenario.deployment.pools()[role].experts
    return (own, ("deployment", role, "experts")) if own else (scenario.experts, ("experts",))
