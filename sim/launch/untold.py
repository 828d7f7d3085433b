"""What of a scenario no flag of an engine sets, so that its commands start something else than it describes.

Keys that do nothing are not told: those that say what the engine does by itself.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from sim.deployment.engine import engine_of
from sim.launch import indexer
from sim.scenario.schema import Experts, Indexer, Overlap, Scenario, Scheduling
from sim.scenario.section import Section

EVERY: Final = frozenset({"sglang", "vllm", "trtllm"})
FLAGS: Final[Mapping[str, frozenset[str]]] = {
    "overlap.two_batch": frozenset({"sglang", "vllm"}),
    "indexer.dense_threshold": frozenset(indexer.DENSE),
    "indexer.logits_gb": frozenset(indexer.LOGITS),
    "scheduling.cuda_graphs": EVERY,
    "scheduling.prefill_graph_tokens": frozenset({"sglang"}),
    "scheduling.poll_every_steps": frozenset({"sglang", "vllm"}),
    "scheduling.rest_after_prompts_steps": frozenset({"sglang"}),
    "scheduling.mix_prompts": frozenset({"sglang"}),
    "scheduling.decode_poll_steps": frozenset({"sglang"}),
    "scheduling.whole_prompts": EVERY,
    "scheduling.wait_all_ranks_steps": frozenset({"sglang", "trtllm"}),
    "scheduling.gather_prompts_steps": frozenset({"trtllm"}),
    "scheduling.batch_wait_steps": frozenset({"trtllm"}),
    "scheduling.batch_wait_fill": frozenset({"trtllm"}),
}
"""Habits of a step -> the engines that have a flag for them."""
WHY: Final[Mapping[str, str]] = {
    "scheduling.waits_for_prefill_answer": "the router decides it: SGLang's waits, NVIDIA Dynamo's does not",
}
OF_THE_PRICE: Final[Mapping[str, tuple[str, ...]]] = {
    "scheduling": ("host_overhead_s", "communication_factor", "draft_host_s", "ingress_s"),
    "indexer": ("scores",),
    "speculation": ("acceptance", "task", "thinking"),
    "experts": (
        "popularity_sigma", "counts", "staleness_rho", "drift_rho", "drift_every_steps", "node_limit",
    ),
}  # fmt: skip
"""What is measured of a service or its traffic, not set."""
WHOLE: Final = ("profile", "allow_foreign_profile", "anchor", "autoscale", "failures", "fleet")


def untold(scenario: Scenario, engine: str) -> Iterator[str]:
    """Sentences: a key and why."""
    yield from _habits(scenario, engine)
    yield from _drafts(scenario, engine)
    yield from _cache(scenario)
    if scenario.engine_version is not None and scenario.engine == engine:
        version = scenario.engine_version
        yield f"engine_version {version}: it is the one that is installed; `launch read --engine-version {version}`"
    beside = [*_of_the_price(scenario), *(name for name in WHOLE if _differs(scenario, name))]
    if beside:
        yield f"{', '.join(beside)}: not set in an engine; to be copied into what `launch read` gives"


def _habits(scenario: Scenario, engine: str) -> Iterator[str]:
    """Keys of a step's habits that change what this engine does."""
    parts: tuple[tuple[str, type[Section]], ...] = (
        ("overlap", Overlap),
        ("indexer", Indexer),
        ("scheduling", Scheduling),
    )
    of_it = scenario.model_copy(update={"engine": engine, **_release(scenario, engine)})
    now = engine_of(of_it)
    for section, form in parts:
        values = getattr(scenario, section)
        for name in form.model_fields:
            key = f"{section}.{name}"
            if (
                getattr(values, name) is None
                or name in OF_THE_PRICE.get(section, ())
                or engine in FLAGS.get(key, ())
            ):
                continue
            without = of_it.model_copy(update={section: values.model_copy(update={name: None})})
            if engine_of(without) != now:
                yield f"{key}: {WHY.get(key, 'no flag sets it')}"


def _release(scenario: Scenario, engine: str) -> dict[str, Any]:
    """Another engine has other releases."""
    return {} if engine == scenario.engine else {"engine_version": None}


def _drafts(scenario: Scenario, engine: str) -> Iterator[str]:
    if scenario.speculation.adaptive:
        yield "drafts by batch: the engines choose them by their own tables"
    if scenario.speculation.draft_tokens and scenario.speculation.method == "dspark" and engine == "trtllm":
        yield "speculation.method dspark: none is known of TensorRT-LLM; these are MTP's drafts"


def _cache(scenario: Scenario) -> Iterator[str]:
    cache = scenario.prefix_cache
    if cache.enabled and cache.scope != "rank":
        yield f"a prefix cache of a whole {cache.scope}: every rank has its own"
    if cache.enabled and cache.hbm_tokens is not None:
        yield "prefix_cache.hbm_tokens: the cache has what running sequences leave"


def _of_the_price(scenario: Scenario) -> Iterator[str]:
    """Keys that were measured or are the traffic's."""
    own = [pool.experts for pool in scenario.deployment.pools().values() if pool.experts]
    for section, names in OF_THE_PRICE.items():
        told = [getattr(scenario, section), *(own if section == "experts" else ())]
        yield from (f"{section}.{name}" for name in names if any(_differs(values, name) for values in told))


def _differs(section: Section, name: str) -> bool:
    if isinstance(section, Experts) and name == "popularity_sigma":
        return section.counts is None and section.sigma != Experts().sigma
    return getattr(section, name) != type(section).model_fields[name].default  # type: ignore[no-any-return]
