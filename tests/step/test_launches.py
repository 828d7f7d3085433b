"""What the host launches in a step with prompts, and what drafts ask of it."""

from dataclasses import replace

import numpy as np
import pytest
from even_routing import balanced_routing
from hypothesis import given, settings
from hypothesis import strategies as st

from sim import catalog
from sim.cost.latency import AnalyticCost
from sim.deployment.plan import plan_pool
from sim.explain import explain
from sim.model.layout import Layout
from sim.scenario.loading import parse
from sim.scenario.schema import Scenario
from sim.step import PromptLoad
from sim.step.build import build_step_cost
from sim.step.cost import SurfaceStepCost
from sim.step.operations import StepOperations
from sim.step.overlap import StepOverlap, launches

LAUNCH_S = 64e-6
LISTED = 61 * 10 + 61 + 3 * 5 + 58 * 7 + 58 + 64 + 3
"""DeepSeek-V3 on TP8, by hand: 61 attention blocks of 10 (four projections, each with its quantisation, norms, core),
61 residuals with norms, 3 dense FFNs of 5, 58 layers of gate, routed experts and a shared expert of 5; an all-reduce
after each of the 58, the 61 and the 3; head, gathering its logits, sampling."""
LAYOUT = Layout(catalog.model("deepseek-v3"), gpus=8, tp=8, ep=1, gpus_per_node=8)


def scenario(text: str = "", **pool: int) -> Scenario:
    keys = "".join(f", {key}: {value}" for key, value in {"gpus": 8, "tp": 8, "ep": 1, **pool}.items())
    return parse(
        "model: deepseek-v3\ngpu: h200_sxm\nprofile: analytic\n"
        f"deployment: {{serve: {{workers: 1{keys}}}}}\n"
        "workload: {arrivals: {all_at_once: {}}, lengths: {input: {constant: 9}, output: {constant: 9}}, requests: 1}\n"
        + text
    ).scenario


def prompts(overlap: StepOverlap, most: int = 16384) -> SurfaceStepCost:
    step = StepOperations(LAYOUT, balanced_routing(LAYOUT, 256), catalog.engine("sglang"), overlap=overlap)
    cost = AnalyticCost(catalog.gpu("h200_sxm"), catalog.efficiency())
    return build_step_cost({"prefill": step}, cost, 1, most)


HIDDEN, EAGER, GRAPHS = (
    prompts(StepOverlap(launch_s=seconds, graph_tokens=graphs))
    for seconds, graphs in ((0.0, 0), (LAUNCH_S, 0), (LAUNCH_S, 2048))
)


def prompt_s(cost: SurfaceStepCost, tokens: float) -> float:
    return cost.prefill_s(PromptLoad.alike(np.array([float(tokens)]), np.array([(tokens + 1) / 2])))


def test_a_short_prompt_waits_for_its_launches() -> None:
    """1,217 operations of 64 us are 77.9 ms, whatever the GPU takes."""
    assert LISTED == 1217
    assert prompt_s(HIDDEN, 64) < 0.03
    assert prompt_s(EAGER, 64) == pytest.approx(LISTED * LAUNCH_S)
    told = explain(scenario('engine_version: "0.5.9"'), "prefill", 64)
    assert told.step_s == pytest.approx(LISTED * LAUNCH_S)
    assert told.json()["launch_wait_s"] == pytest.approx(told.step_s - told.device_s)


def test_a_long_prompt_hides_them() -> None:
    for tokens in (8192, 16384):
        assert prompt_s(HIDDEN, tokens) > 2 * LISTED * LAUNCH_S
        assert prompt_s(EAGER, tokens) == prompt_s(HIDDEN, tokens)


def test_piecewise_graphs_leave_the_core_and_one_graph_a_layer_to_launch() -> None:
    """2 x 61 launches are 7.8 ms; from one token more on, all 1,217 again."""
    dense, sparse = (
        StepOperations(
            replace(LAYOUT, model=catalog.model(name)),
            balanced_routing(LAYOUT, 256),
            catalog.engine("sglang"),
        ).prefill_attention(1, tokens, 0)[0]
        for name, tokens in (("deepseek-v3", 1024), ("deepseek-v3.2", 4096))
    )
    assert launches(dense, 1, captured=True) == 61 * 2
    assert launches(sparse, 1, captured=True) == 61 * (
        3 + 2
    )  # logits, top-k and core; a graph behind either piece
    assert prompt_s(GRAPHS, 2048) == prompt_s(HIDDEN, 2048)
    assert prompt_s(HIDDEN, 2049) < LISTED * LAUNCH_S
    assert prompt_s(GRAPHS, 2049) == pytest.approx(LISTED * LAUNCH_S)


@given(
    st.integers(1, 16384),
    st.floats(0, 1e-3),
    st.integers(0, 16384),
    st.booleans(),
)
@settings(max_examples=100, deadline=None)
def test_launching_never_makes_a_step_cheaper(
    tokens: int, launch_s: float, graphs: int, two_batch: bool
) -> None:
    free = StepOverlap(two_batch=two_batch)
    costly = replace(free, launch_s=launch_s, graph_tokens=graphs)
    step = StepOperations(LAYOUT, balanced_routing(LAYOUT, 256), catalog.engine("sglang"))
    parts = free.parts(tokens)
    operations = [*step.prefill_attention(1, tokens / parts, 0), *step.prefill_rest(tokens / parts)]
    few, many = costly.launched(operations, parts, graphs), costly.launched(operations, parts, graphs + 1)
    assert 0 < few < many
    assert prompt_s(GRAPHS, tokens) >= prompt_s(HIDDEN, tokens)
    assert prompt_s(EAGER, tokens) >= prompt_s(GRAPHS, tokens) - 1e-12


def test_drafts_cost_the_host_time_in_every_decode_step() -> None:
    told = {
        text: explain(scenario(text), "decode", 1, 1024)
        for text in (
            "",
            "speculation: {draft_tokens: 1}",
            'speculation: {draft_tokens: 3}\nengine_version: "0.5.9"',
        )
    }
    rows = [
        {row["name"]: row for row in one.json()["operations"]}.get("host for drafts") for one in told.values()
    ]
    engines = [catalog.engine("sglang"), catalog.engine("sglang", "0.5.9")]
    assert rows[0] is None
    assert [row["seconds"] for row in rows[1:] if row] == [engine.draft_host_s for engine in engines]
    assert all(row["source"] == "engine overhead of the catalog" for row in rows[1:] if row)
    said = explain(
        scenario("speculation: {draft_tokens: 1}\nscheduling: {draft_host_s: 0.1}"), "decode", 1, 1024
    )
    assert said.step_s > 0.1


def test_older_releases_have_what_they_had() -> None:
    """SGLang's wheels: graphs for prompts from 0.5.10, of DSA models from 0.5.13; overlapped drafts from 0.5.11."""
    names = ("0.5.6.post1", "0.5.9", "0.5.10", "0.5.11", "0.5.13", "0.5.23", None)
    engines = [catalog.engine("sglang", name) for name in names]
    assert [engine.prefill_graph_tokens for engine in engines] == [0, 0, 2048, 2048, 2048, 2048, 2048]
    assert ["sparse_attention" in engine.prefill_graph_excludes for engine in engines] == [True] * 4 + [
        False
    ] * 3
    late = catalog.engine("sglang").draft_host_s
    assert [engine.draft_host_s > late for engine in engines] == [True] * 3 + [False] * 4
    assert replace(catalog.engine("vllm", "0.30"), release="0.24.0") == catalog.engine("vllm")


@pytest.mark.parametrize(
    ("text", "pool", "tokens"),
    [
        ("", {}, 2048),
        ('engine_version: "0.5.9"', {}, 0),
        ("speculation: {draft_tokens: 1}", {}, 0),
        ("", {"tp": 1}, 0),
        ("scheduling: {cuda_graphs: false}", {}, 0),
        ("scheduling: {prefill_graph_tokens: 4096}", {"tp": 1}, 4096),
        ("engine: vllm", {"tp": 1}, 512),
        ("engine: trtllm", {}, 0),
    ],
)
def test_which_prompts_are_captured(text: str, pool: dict[str, int], tokens: int) -> None:
    assert plan_pool(scenario(text, **pool), "serve").graph_tokens == tokens
