"""What `launch write` writes, `launch read` reads as the same scenario, wherever the engine can express it."""

from typing import Any

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from sim import catalog
from sim.deployment.plan import deploy
from sim.launch.read import read_launch
from sim.launch.write import write_launch
from sim.scenario.errors import DeploymentError
from sim.scenario.loading import parse
from sim.scenario.schema import Scenario

WORKLOAD = {
    "arrivals": {"closed_loop": {"concurrency": 8}},
    "lengths": {"input": {"constant": 100}, "output": {"constant": 10}},
    "requests": 8,
}
NVFP4 = {"weights": "nvfp4", "attention": "bf16", "dense": "nvfp4"}
powers = st.sampled_from([1, 2, 4, 8, 16, 32])
pools = st.fixed_dictionaries(
    {
        "workers": st.integers(1, 3),
        "gpus": st.sampled_from([4, 8, 16, 32]),
        "tp": powers,
        "ep": powers,
        "max_batch_per_gpu": st.integers(1, 512),
        "chunk_tokens": st.sampled_from([512, 4096, 8192, 16384]),
    },
    optional={
        "exchange": st.sampled_from(["all_to_all", "all_gather"]),
        "memory_fraction": st.sampled_from([0.8, 0.85, 0.9]),
        "experts": st.sampled_from([{"redundant": 32}, {"redundant": 64}]),
    },
)
scenarios = st.fixed_dictionaries(
    {
        "model": st.sampled_from(["deepseek-v3.2", "deepseek-r1-0528", "deepseek-v3"]),
        "gpu": st.sampled_from(["h200_sxm", "b200_sxm", "gb200_nvl72"]),
        "deployment": st.one_of(
            st.fixed_dictionaries({"serve": pools}),
            st.fixed_dictionaries({"prefill": pools, "decode": pools}),
        ),
        "precision": st.sampled_from(
            [{"weights": "fp8", "kv_cache": form} for form in ("bf16", "fp8")]
            + [{**NVFP4, "kv_cache": "fp8"}]
        ),
        "speculation": st.fixed_dictionaries({"draft_tokens": st.integers(0, 3)}),
        "prefix_cache": st.sampled_from(
            [{"enabled": False}, {"enabled": True, "scope": "rank", "block_tokens": 32}]
        ),
        "overlap": st.sampled_from([{}, {"two_batch": True}]),
        "scheduling": st.sampled_from([{}, {"cuda_graphs": False}]),
    }
)


def essence(scenario: Scenario) -> dict[str, Any]:
    """What must survive: the deployment as it is resolved, formats, drafts, caps, cache and habits."""
    plan = deploy(scenario)
    pools = {
        role: {
            "workers": pool.workers,
            "layout": (pool.gpus, pool.tp, pool.ep),
            "seats": pool.max_batch_per_gpu if role != "prefill" else None,
            "chunk": plan.pools[role].chunk_tokens if role != "decode" else None,
            "exchange": (pool.exchange or "all_to_all") if pool.tp < pool.gpus == pool.ep else None,
            # Engines refuse EPLB of experts that are not spread.
            "redundant": plan.pools[role].experts.redundant if pool.ep > 1 else 0,
        }
        for role, pool in scenario.deployment.pools().items()
    }
    cache = scenario.prefix_cache
    return {
        "model": catalog.model(scenario.model).name,
        "pools": pools,
        "formats": (
            scenario.precision.weights,
            scenario.precision.attention_format,
            scenario.precision.dense_format,
            scenario.precision.kv_cache,
        ),
        "drafts": scenario.speculation.draft_tokens,
        "cache": (cache.scope, cache.block_tokens) if cache.enabled else None,
        "two_batch": scenario.overlap.two_batch or False,
        "graphs": scenario.scheduling.cuda_graphs is not False,
    }


WIDE_EP = {
    "model": "deepseek-v3",
    "gpu": "h200_sxm",
    "deployment": {
        "prefill": {
            "workers": 2,
            "gpus": 8,
            "tp": 1,
            "ep": 8,
            "chunk_tokens": 8192,
            "experts": {"redundant": 32},
        },
        "decode": {
            "workers": 1,
            "gpus": 32,
            "tp": 1,
            "ep": 32,
            "max_batch_per_gpu": 128,
            "experts": {"redundant": 32},
        },
    },
    "precision": {"kv_cache": "fp8"},
    "overlap": {"two_batch": True},
}


@pytest.mark.parametrize("engine", ["sglang", "vllm", "trtllm"])
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow]
)
@given(data=scenarios)
@example(data=WIDE_EP)
def test_written_commands_read_as_the_same_scenario(engine: str, data: dict[str, Any]) -> None:
    scenario = Scenario.model_validate({**data, "engine": engine, "workload": WORKLOAD})
    try:
        deploy(scenario)
        written = write_launch(scenario)
    except DeploymentError:
        assume(False)
    found = read_launch(written.text, scenario.gpu)
    again = parse(found.text).scenario
    wanted, got = essence(scenario), essence(again)
    if any("two_batch" in said for said in written.cannot):
        wanted["two_batch"] = False
    assert got == wanted
    lost = any(pool.ep == 1 and pool.experts for pool in scenario.deployment.pools().values())
    assert lost <= any("experts.redundant" in said for said in written.cannot)
    given_fractions = {
        r: p.memory_fraction for r, p in scenario.deployment.pools().items() if p.memory_fraction
    }
    assert {r: again.deployment.pools()[r].memory_fraction for r in given_fractions} == given_fractions


HABITS: dict[str, tuple[str, dict[str, Any]]] = {
    "SGLang, prompts in decode steps, none of them in graphs": (
        "sglang",
        {
            "deployment": {"serve": {"gpus": 8, "tp": 8}},
            "scheduling": {"mix_prompts": True, "prefill_graph_tokens": 0},
        },
    ),
    "SGLang, prompts held until every rank has one": (
        "sglang",
        {"deployment": {"serve": {"gpus": 8, "ep": 8}}, "scheduling": {"wait_all_ranks_steps": 12}},
    ),
    "SGLang, two pools": (
        "sglang",
        {
            "deployment": {"prefill": {"gpus": 8, "tp": 8}, "decode": {"gpus": 8, "tp": 8}},
            "scheduling": {"prefill_graph_tokens": 0, "decode_poll_steps": 4},
        },
    ),
    "vLLM, whole prompts": (
        "vllm",
        {"deployment": {"serve": {"gpus": 8, "tp": 8}}, "scheduling": {"whole_prompts": True}},
    ),
}


@pytest.mark.parametrize("case", HABITS)
def test_habits_that_a_flag_names_come_back(case: str) -> None:
    engine, data = HABITS[case]
    base = {"model": "deepseek-v3", "gpu": "h200_sxm", "engine": engine, "workload": WORKLOAD}
    written = write_launch(Scenario.model_validate({**base, **data}))
    assert read_launch(written.text, "h200_sxm").scenario["scheduling"] == data["scheduling"]


PLACED = st.sampled_from(
    [{}, {"redundant": 32}, {"redundant": 32, "placement": "contiguous"}, {"placement": "global"}]
)


@settings(max_examples=10, deadline=None)
@given(prefill=PLACED, decode=PLACED)
def test_replicas_come_back_as_they_were_placed(prefill: dict[str, Any], decode: dict[str, Any]) -> None:
    """SGLang has replicas with EPLB and without it; a command that lacks EPLB does not get it."""
    of = {"gpus": 8, "tp": 1, "ep": 8}
    pools = {"prefill": {**of, "experts": prefill}, "decode": {**of, "experts": decode}}
    data = {
        "model": "deepseek-v3",
        "gpu": "b200_sxm",
        "engine": "sglang",
        "workload": WORKLOAD,
        "deployment": pools,
    }
    written = write_launch(Scenario.model_validate(data))
    read = read_launch(written.text, "b200_sxm").scenario["deployment"]
    assert [read[role].get("experts", {}) for role in pools] == [prefill, decode]
    balanced = [
        placed for placed in (prefill, decode) if placed.get("placement", "global") == "global" and placed
    ]
    assert written.text.count("--enable-eplb") == len(balanced)
    assert not any("experts" in said for said in written.cannot)


def test_replicas_that_nobody_balanced_are_lost_aloud_by_the_others() -> None:
    experts = {"redundant": 32, "placement": "contiguous"}
    pool = {"gpus": 8, "tp": 1, "ep": 8, "experts": experts}
    data = {"model": "deepseek-v3", "gpu": "b200_sxm", "workload": WORKLOAD, "deployment": {"serve": pool}}
    for engine in ("vllm", "trtllm"):
        written = write_launch(Scenario.model_validate({**data, "engine": engine}))
        assert any("experts.placement" in said for said in written.cannot)


def test_what_an_engine_cannot_do_is_said() -> None:
    data = {
        "model": "deepseek-v3.2",
        "gpu": "h200_sxm",
        "engine": "sglang",
        "workload": WORKLOAD,
        "deployment": {"serve": {"gpus": 8, "tp": 2, "ep": 4}},
        "prefix_cache": {"enabled": True, "scope": "cluster", "host_gb": 100.0, "disk_gb": 1000.0},
        "speculation": {"draft_tokens": 2, "adaptive": [{"up_to_batch": 8, "draft_tokens": 2}]},
    }
    scenario = Scenario.model_validate(data)
    said = " ".join(write_launch(scenario).cannot)
    assert "whole cluster" in said and "disk_gb" in said and "drafts by batch" in said
    with pytest.raises(DeploymentError, match=r"deployment.serve.ep: vLLM spreads experts over all 8 GPUs"):
        write_launch(scenario, "vllm")
    with pytest.raises(
        DeploymentError, match=r"deployment.serve.tp: TensorRT-LLM has attention TP over all 8"
    ):
        write_launch(scenario, "trtllm")
    with pytest.raises(DeploymentError, match="deepseek is not an engine that can be launched"):
        write_launch(scenario.model_copy(update={"engine": "deepseek"}))


DSPARK = {"method": "dspark", "draft_tokens": 5, "task": "coding", "thinking": True}


@pytest.mark.parametrize("engine", ["vllm", "sglang", "trtllm"])
@pytest.mark.parametrize(
    ("section", "wanted", "key", "instead", "said"),
    [
        ("precision", {"kv_cache": "fp8_fp4"}, "kv_cache", "fp8", "index keys in MXFP4"),
        ("speculation", DSPARK, "method", "mtp", "speculation.method dspark"),
    ],
)
def test_what_v4_has_of_its_own_is_written_and_read_but_lost_aloud_by_tensorrt_llm(
    engine: str, section: str, wanted: dict[str, Any], key: str, instead: str, said: str
) -> None:
    data = {
        "model": "deepseek-v4-pro",
        "gpu": "b200_sxm",
        "engine": engine,
        "workload": WORKLOAD,
        "deployment": {"serve": {"gpus": 8, "tp": 8}},
        section: wanted,
    }
    written, lost = write_launch(Scenario.model_validate(data)), engine == "trtllm"
    assert (said in " ".join(written.cannot)) is lost
    read = read_launch(written.text, "b200_sxm").scenario[section].get(key, instead)
    assert read == (instead if lost else wanted[key])


@pytest.mark.parametrize(
    "flag", ["--attention_config.use_fp4_indexer_cache=True", "-ac.use_fp4_indexer_cache true"]
)
def test_index_keys_in_fp4_as_a_recipe_has_them(flag: str) -> None:
    for model, gpu, form in (
        ("V4-Pro", "b200_sxm", "fp8_fp4"),
        ("V4-Pro", "h200_sxm", "fp8"),
        ("V3.2", "b200_sxm", "fp8"),
    ):
        launch = read_launch(
            f"vllm serve deepseek-ai/DeepSeek-{model} -tp 8 --kv-cache-dtype fp8 {flag}", gpu
        )
        assert launch.scenario["precision"]["kv_cache"] == form
        assert any("no index keys in MXFP4" in told.why for told in launch.not_modelled) is (form == "fp8")


def test_one_command_per_worker_and_node() -> None:
    scenario = Scenario.model_validate({**WIDE_EP, "workload": WORKLOAD})
    heads = [text.split("\n")[0] for text in write_launch(scenario, "sglang").commands]
    assert heads == [
        "# prefill worker 1 of 2, on prefill0-node0",
        "# prefill worker 2 of 2, on prefill1-node0",
        *(f"# decode worker 1 of 1, node {n + 1} of 4, on decode0-node{n}" for n in range(4)),
        "# the router",
    ]
