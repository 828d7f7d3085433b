"""Every key that changes a price and has a flag in an engine survives `launch write` and `launch read`; every other key
that changes one is told."""

from typing import Any

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from sim.deployment.engine import engine_of
from sim.deployment.plan import deploy
from sim.launch.read import read_launch
from sim.launch.untold import FLAGS
from sim.launch.write import write_launch
from sim.scenario.errors import DeploymentError
from sim.scenario.loading import parse
from sim.scenario.schema import Scenario, Scheduling
from sim.step.pricing import check_backends

ENGINES = ("sglang", "vllm", "trtllm")
WORKLOAD = {
    "arrivals": {"closed_loop": {"concurrency": 8}},
    "lengths": {"input": {"constant": 100}, "output": {"constant": 10}},
    "requests": 8,
}
flags = st.booleans()
steps = st.integers(1, 40)
KERNELS = ("trtllm_gen", "cutlass", "deepgemm", "mega_moe", "deepep_normal", "triton")
pools = st.fixed_dictionaries(
    {"gpus": st.just(8), "tp": st.sampled_from([1, 2, 8]), "ep": st.sampled_from([1, 8])},
    optional={
        "workers": st.integers(1, 2),
        "exchange": st.sampled_from(["all_to_all", "all_gather"]),
        "moe_backend": st.sampled_from(KERNELS),
        "max_batch_per_rank": st.integers(1, 300),
        "chunk_tokens": st.sampled_from([1000, 4096, 16384]),
        "experts": st.sampled_from(
            [{"placement": "global"}, {"redundant": 32}, {"redundant": 32, "placement": "hierarchical"}]
        ),
    },
)
SECTIONS: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "overlap": st.fixed_dictionaries({}, optional={"two_batch": st.just(True), "shared_expert": flags}),
    "indexer": st.fixed_dictionaries(
        {},
        optional={
            "dense_threshold": st.integers(0, 4096),
            "logits_gb": st.sampled_from([0.268, 0.537, 4.295]),
        },
    ),
    "scheduling": st.fixed_dictionaries(
        {},
        optional={
            "cuda_graphs": flags,
            "prefill_graph_tokens": st.sampled_from([0, 1024, 4096]),
            "poll_every_steps": steps,
            "wait_all_ranks_steps": steps,
            "gather_prompts_steps": st.integers(0, 20),
            "batch_wait_steps": steps,
            "batch_wait_fill": st.sampled_from([0.5, 0.8]),
            "rest_after_prompts_steps": steps,
            "whole_prompts": flags,
            "mix_prompts": flags,
            "decode_poll_steps": steps,
            "waits_for_prefill_answer": flags,
        },
    ),
    "prefix_cache": st.fixed_dictionaries(
        {"enabled": flags, "scope": st.just("rank")},
        optional={
            "block_tokens": st.sampled_from([32, 64, 128, 256]),
            "host_gb": st.sampled_from([64.0, 640.0]),
        },
    ),
}
scenarios = st.fixed_dictionaries(
    {
        "model": st.sampled_from(["deepseek-v3.2", "deepseek-v4-pro"]),
        "gpu": st.sampled_from(["b200_sxm", "gb300_nvl72"]),
        "deployment": st.one_of(
            st.fixed_dictionaries({"serve": pools}),
            st.fixed_dictionaries({"prefill": pools, "decode": pools}),
        ),
        **SECTIONS,
    },
    optional={"router": st.sampled_from(["round_robin", "least_loaded", "random", "prefix_aware"])},
)
SPREAD = {"gpus": 8, "tp": 1, "ep": 8, "moe_backend": "mega_moe"}
OF_ONE_KIND = {
    "mix_prompts": "serve", "wait_all_ranks_steps": "serve", "decode_poll_steps": "decode",
    "waits_for_prefill_answer": "decode",
}  # fmt: skip
"""Habits that only a deployment with that pool has."""


def pool_keys(scenario: Scenario, role: str) -> dict[str, Any]:
    """A pool's keys with what they leave to the layout."""
    pool, plan = scenario.deployment.pools()[role], deploy(scenario).pools[role]
    return {
        "layout": (pool.workers, pool.gpus, pool.tp, pool.ep, plan.layout.all_to_all),
        "moe_backend": pool.moe_backend,
        "seats": plan.max_sequences if role != "prefill" else None,
        "chunk": plan.chunk_tokens if role != "decode" else None,
        "redundant": plan.experts.redundant,
        "placement": plan.experts.placement,
    }


def changes(scenario: Scenario, section: str, name: str) -> bool:
    """Whether a key changes what the engine does."""
    values = getattr(scenario, section)
    without = scenario.model_copy(update={section: values.model_copy(update={name: None})})
    return engine_of(without) != engine_of(scenario)


@pytest.mark.parametrize("engine", ENGINES)
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow]
)
@given(data=scenarios)
@example(data={"model": "deepseek-v4-pro", "gpu": "b200_sxm", "deployment": {"serve": SPREAD}})
@example(
    data={
        "model": "deepseek-v4-pro",
        "gpu": "gb300_nvl72",
        "deployment": {"prefill": SPREAD, "decode": SPREAD},
    }
)
def test_a_key_comes_back_or_is_told(engine: str, data: dict[str, Any]) -> None:
    scenario = Scenario.model_validate({**data, "engine": engine, "workload": WORKLOAD})
    try:
        check_backends(deploy(scenario))
        written = write_launch(scenario)
    except DeploymentError:
        assume(False)
    read = read_launch(written.text, scenario.gpu)
    again, told = parse(read.text).scenario, "; ".join(written.cannot)
    for role in scenario.deployment.pools():
        wanted, got = pool_keys(scenario, role), pool_keys(again, role)
        for key in wanted:
            assert got[key] == wanted[key] or key in told, (role, key, written.text)
    for section in ("overlap", "indexer", "scheduling"):
        for name in type(getattr(scenario, section)).model_fields:
            value, kind = getattr(getattr(scenario, section), name), OF_ONE_KIND.get(name)
            if value is None or not changes(scenario, section, name):
                continue
            if kind is not None and kind not in scenario.deployment.pools():
                continue
            back = getattr(getattr(again, section), name)
            assert (back == value) != (f"{section}.{name}" in told), (section, name, told, written.text)
    places = [pool.workers * pool.gpus // pool.tp for pool in scenario.deployment.pools().values()]
    assert again.router == scenario.router or max(places) == 1 or "router" in told, written.text
    assert scenario.prefix_cache.enabled == again.prefix_cache.enabled
    if scenario.prefix_cache.enabled:
        assert again.prefix_cache == scenario.prefix_cache
    assert not [one for one in read.not_modelled if one.unknown], "a flag that the reader does not know"


def test_the_table_of_flags_names_keys() -> None:
    named = {key.partition(".")[2] for key in FLAGS if key.startswith("scheduling.")}
    assert named <= set(Scheduling.model_fields)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_block_of_the_engines_own_size_is_said_by_nobody(engine: str) -> None:
    data = {"model": "deepseek-v3.2", "gpu": "h200_sxm", "engine": engine, "workload": WORKLOAD}
    data |= {
        "deployment": {"serve": {"gpus": 8, "tp": 8}},
        "prefix_cache": {"enabled": True, "scope": "rank"},
    }
    written = write_launch(Scenario.model_validate(data))
    assert read_launch(written.text, "h200_sxm").scenario["prefix_cache"] == data["prefix_cache"]
    assert "--page-size" not in written.text and "--block-size" not in written.text


@pytest.mark.parametrize(("engine", "flag"), [("sglang", "--page-size"), ("vllm", "--block-size")])
@pytest.mark.parametrize("blocks", [64, 128, 256])
def test_v4_has_blocks_of_256_tokens_unless_a_flag_says_otherwise(
    engine: str, flag: str, blocks: int
) -> None:
    """256: SGLang's page size of V4 and vLLM's block size of it."""
    data = {"model": "deepseek-v4-pro", "gpu": "b200_sxm", "engine": engine, "workload": WORKLOAD}
    data |= {
        "deployment": {"serve": {"gpus": 8, "tp": 8}},
        "prefix_cache": {"enabled": True, "scope": "rank", "block_tokens": blocks},
    }
    scenario = Scenario.model_validate(data)
    written = write_launch(scenario)
    assert (flag in written.text) is (blocks != 256)
    again = read_launch(written.text, "b200_sxm")
    assert parse(again.text).scenario.prefix_cache == scenario.prefix_cache
    if blocks == 256:
        assert "default of" in again.json()["reasons"]["prefix_cache.block_tokens"]


def test_what_is_not_of_a_command_is_told_in_one_sentence() -> None:
    data = {
        "model": "deepseek-v3.2",
        "gpu": "h200_sxm",
        "engine": "sglang",
        "engine_version": "0.5.9",
        "workload": WORKLOAD,
        "deployment": {"serve": {"gpus": 8, "tp": 8, "experts": {"popularity_sigma": 0.5}}},
        "speculation": {"draft_tokens": 1, "acceptance": [0.8]},
        "scheduling": {"host_overhead_s": 0.001},
        "fleet": {"replicas": 4},
    }
    cannot = write_launch(Scenario.model_validate(data)).cannot
    assert cannot == (
        "engine_version 0.5.9: it is the one that is installed; `launch read --engine-version 0.5.9`",
        "scheduling.host_overhead_s, speculation.acceptance, experts.popularity_sigma, fleet: not set in an engine; "
        "to be copied into what `launch read` gives",
    )
