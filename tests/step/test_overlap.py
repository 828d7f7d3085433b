"""How stages share a step's time: by hand, and against the kernel times of DeepSeek's decode profile."""

from dataclasses import replace

import numpy as np
import pytest
from even_routing import balanced_routing

from sim.catalog import efficiency, engine, gpu, model
from sim.cost.latency import AnalyticCost
from sim.model.exchanges import all_to_all
from sim.model.layout import Layout
from sim.model.operations import gemm
from sim.step.build import build_step_cost
from sim.step.operations import StepOperations
from sim.step.overlap import STAGES, StepOverlap, launches, timeline

MICROSECOND = 1e-6


def _step(overlap: StepOverlap, halves: bool, attention: float, sends: float = 0.0, **stages: float) -> float:
    seconds = dict.fromkeys(STAGES, 0.0) | stages
    return float(timeline(seconds, overlap, halves, sends).line(seconds["experts"]).seconds(attention))


def test_one_batch_runs_its_stages_one_after_the_other() -> None:
    stages = {"layers": 2, "dense": 3, "experts": 5, "shared": 7, "dispatch": 11, "combine": 13, "once": 17}
    assert _step(StepOverlap(), False, 19, **stages) == 2 + 3 + 5 + 7 + 11 + 13 + 17 + 19


@pytest.mark.parametrize(
    ("shared", "exchange", "beside_experts", "left"),
    [(2, 0, True, 0), (2, 0, False, 2), (7, 0, True, 4), (7, 4, True, 0), (7, 4, False, 3)],
)
def test_the_shared_expert_hides_beside_the_exchange_and_in_decode_the_routed_ones(
    shared: float, exchange: float, beside_experts: bool, left: float
) -> None:
    overlap = StepOverlap(shared_expert=True, beside_experts=beside_experts)
    stages = {"layers": 5, "experts": 3, "shared": shared, "combine": exchange, "once": 1}
    assert _step(overlap, False, 10, **stages) == 10 + 5 + 3 + exchange + left + 1


def test_alternating_halves_meet_at_every_stage() -> None:
    # Halves: attention 4, experts 6, shared 1, dispatch 5, combine 8. Four stages of two each: attention 4, dispatch 5;
    # experts 6, dispatch 5; experts and shared 7, combine 8; attention and shared 5, combine 8.
    stages = {"experts": 12, "shared": 2, "dispatch": 10, "combine": 16, "once": 1, "dense": 3}
    assert _step(StepOverlap(two_batch=True), True, 8, **stages) == 5 + 6 + 8 + 8 + 1 + 3


def test_alternating_halves_send_and_receive_between_computations() -> None:
    # Halves: attention 6, gate 1, experts 6, shared 1, dispatch 5, combine 8; sending takes 1, receiving 1.5.
    # attention, gate, send 8 | dispatch 5; experts, send 7 | dispatch 5; experts, shared, receive 8.5 | combine 8;
    # attention, gate, shared, receive 9.5 | combine 8.
    stages = {"layers": 2, "experts": 12, "shared": 2, "dispatch": 10, "combine": 16}
    overlap = StepOverlap(two_batch=True, combine_sends=1.5)
    assert _step(overlap, True, 12, sends=2, **stages) == 8 + 7 + 8.5 + 9.5


def test_staged_halves_hide_the_combine_behind_the_core_and_nothing_behind_the_experts() -> None:
    # Halves: projections 1 of attention 5, experts 6, shared 2, dispatch 4, combine 7; sending takes 1 and 1.5.
    # dispatch 4 | send 1, shared 2, projections 1; combine 7 | send 1.5, core 4, gate 1; experts alone.
    stages = {
        "projections": 2,
        "layers": 2,
        "experts": 12,
        "shared": 4,
        "dispatch": 8,
        "combine": 14,
        "once": 1,
    }
    overlap = StepOverlap(two_batch=True, schedule="staged", combine_sends=1.5)
    assert _step(overlap, True, 10, sends=2, **stages) == 2 * (4 + 7 + 6) + 1
    longer = {**stages, "combine": 2, "dispatch": 2}
    assert _step(overlap, True, 10, sends=2, **longer) == 2 * (1 + 2 + 1 + 1.5 + 4 + 1 + 6) + 1


def test_layers_without_experts_do_not_hide_an_exchange() -> None:
    # Half of the layers exchange: 5 of attention's 10 beside the combine's 14, the rest alone.
    overlap = StepOverlap(two_batch=True, schedule="staged", exchanging=0.5)
    assert _step(overlap, True, 10, combine=14) == 5 + 14


def test_deepseeks_decode_step_follows_from_its_kernels() -> None:
    # Kernels of one half batch of 128 tokens in DeepSeek's decode profile (EP128, H800), microseconds, as read by
    # zdszero.github.io/Computer/Artificial_Intelligence/deepseek_profile.html, which also gives the step: 61 layers in
    # 87.32 ms. SGLang's 18,598 tokens/s per node of it are 128 x 1.6 x 8 / 88.1 ms.
    projections = 4 + 13 + 2 + 2 + 19 + 16 + 7  # norms, q_a and kv_a, quantise, q_b, absorb, RoPE
    attention = 388
    halves = 2 * 61 * MICROSECOND
    table = efficiency().low_latency_all_to_all
    overlap = StepOverlap(two_batch=True, schedule="staged", combine_sends=table.combine_sends)
    step_s = _step(
        overlap,
        True,
        attention * halves,
        sends=2 * 61 * (table.send_s + table.send_per_token_s * 128),
        projections=projections * halves,
        layers=19 * halves,  # gate
        experts=(81 + 8 + 39) * halves,
        dispatch=187 * halves,
        combine=394 * halves,
    )
    assert step_s == pytest.approx(87.32e-3, rel=0.02)


def test_only_low_latency_sends_stand_between_computations_and_only_with_two_batches() -> None:
    overlap = StepOverlap(two_batch=True, send_s=3.0, send_per_token_s=0.5)

    def sends_s(mode: str, parts: int) -> float:
        return overlap.sends_s([all_to_all("dispatch", 8, 32, 4, 7168, 8, mode, 7.0, 6.0, layers=58)], parts)

    assert sends_s("low_latency", 2) == 2 * 58 * (3.0 + 8 * 0.5)
    assert sends_s("low_latency", 1) == sends_s("normal", 2) == 0.0


def test_every_part_of_every_layer_is_launched_for_each_half() -> None:
    part = gemm("a", "dense", 1, 1, 1, "bf16", layers=3)
    block = replace(part, parts=(part, part))
    once = replace(part, stream="once", layers=1)
    assert [launches(o, 2) for o in (part, block, once)] == [6, 12, 1]


def test_without_cuda_graphs_a_small_batch_waits_for_the_host_and_a_large_one_does_not() -> None:
    layout = Layout(model("deepseek-v3"), 16, 1, 16, 8, dispatch_mode="low_latency")
    plain = StepOperations(layout, balanced_routing(layout, 16), engine("sglang"))
    cost = AnalyticCost(gpu("h200_sxm"), efficiency())
    slow = replace(plain, overlap=StepOverlap(launch_s=20 * MICROSECOND))
    captured, eager = (build_step_cost({"decode": o}, cost, 512, 1) for o in (plain, slow))
    listed = sum(launches(o, 1) for o in [*plain.decode_attention(1, 1), *plain.decode_rest(1)])
    assert eager.decode_s(np.full(16, 1.0), np.full(16, 100.0)) == pytest.approx(listed * 20 * MICROSECOND)
    big = np.full(16, 512.0), np.full(16, 8000.0)
    assert eager.decode_s(*big) == captured.decode_s(*big)
