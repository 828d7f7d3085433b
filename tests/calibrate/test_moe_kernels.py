"""Routed experts: grouped products equal the per-token ones; gate and permutation by hand."""

# ruff: noqa: E402 (torch is optional: without it the module is skipped before the rest is imported)

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'tokenworks[calibrate]'")

from calibrate.cases import Case
from calibrate.grid import moved
from calibrate.kernels.moe import MOE, expert_of_rows, gated_ffn, reference_moe
from calibrate.kernels.routing import MOE_GATE, MOE_PERMUTE, select_experts, sort_rows
from sim.catalog import model
from sim.model import operations as ops

V3 = model("deepseek-v3")


def moe_case(dtype, rows=20, experts=6, active=4):
    return Case(ops.routed_experts(rows, experts, active, 256, 128, dtype), V3)


def relative(found, expected):
    return float((found.double() - expected.double()).norm() / expected.double().norm())


def test_one_row_by_hand():
    x = torch.tensor([[1.0, 2.0]])
    up = torch.tensor([[1.0, 0.0], [0.0, 1.0]])  # gate = 1, up = 2
    down = torch.tensor([[3.0], [-1.0]])
    # silu(1) x 2 = 1 / (1 + e^-1) x 2 = 1.4621172
    assert gated_ffn(x, up, down).tolist() == [pytest.approx([3 * 1.4621172, -1.4621172])]


def test_exactly_the_active_experts_have_rows(cpu, generator):
    counts = MOE.make(moe_case("bf16"), cpu, generator)["counts"]

    assert counts.sum() == 20
    assert (counts > 0).sum() == 4


def test_more_active_experts_than_rows_is_refused(cpu, generator):
    with pytest.raises(ValueError, match="3 rows cannot touch 4 of 6"):
        MOE.make(moe_case("bf16", rows=3), cpu, generator)


@pytest.mark.parametrize("dtype", ["bf16", "fp8"])
def test_the_grouped_product_equals_the_per_token_one(dtype, cpu, generator):
    case = moe_case(dtype)
    tensors = MOE.make(case, cpu, generator)
    backend = next(b for b in MOE.backends if b.name == "torch" and dtype in b.dtypes)

    output = backend.build(case, tensors)()

    per_token = reference_moe(tensors, torch.arange(20))
    assert relative(output, per_token) < 0.01  # BF16 rounds three times, 2^-9 each
    assert MOE.error(case, tensors, output) < MOE.tolerance
    shifted = output.roll(1, 0)  # rows of the right expert in the wrong order
    assert MOE.error(case, tensors, shifted) > MOE.tolerance


def test_the_per_token_reference_takes_each_rows_own_expert(cpu, generator):
    tensors = MOE.make(moe_case("bf16"), cpu, generator)
    experts = expert_of_rows(tensors["counts"])

    found = reference_moe(tensors, torch.tensor([0, 19]))

    for row, output in zip((0, 19), found, strict=True):
        up, down = (tensors[name][experts[row]].double() for name in ("up", "down"))
        gate, linear = (up @ tensors["x"][row].double()).chunk(2)
        assert relative(output, down @ (gate * torch.sigmoid(gate) * linear)) < 1e-12


def test_the_gate_limits_groups_and_normalises_without_bias():
    """4 groups of 2, best 2 groups, 2 experts. Affinities are sigmoids of logits; the bias only selects."""
    tiny = replace(V3, n_routed=8, n_group=4, topk_group=2, top_k=2)
    affinity = torch.tensor([[0.9, 0.1, 0.6, 0.5, 0.3, 0.4, 0.2, 0.2]])
    bias = torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, 0.5, 0.0, 0.0])
    # group sums: 1.0, 1.1, 0.3 + 0.9 = 1.2, 0.4 -> groups 1 and 2, so the best expert of all (0) is out;
    # inside: 0.6, 0.5, 0.3, 0.9 -> experts 5 (0.4 without bias) and 2 (0.6)
    chosen, weights = select_experts(torch.logit(affinity), bias, tiny)

    assert dict(zip(chosen[0].tolist(), weights[0].tolist(), strict=True)) == pytest.approx({5: 0.4, 2: 0.6})


def gate_case():
    return Case(moved("moe_gate", {"tokens": 9, "experts": 256, "top_k": 8}, 1.0), V3)


def test_the_gates_error_ignores_the_order_of_experts_and_sees_a_wrong_one(cpu, generator):
    case = gate_case()
    tensors = MOE_GATE.make(case, cpu, generator)
    chosen, weights = MOE_GATE.backends[-1].build(case, tensors)()

    assert MOE_GATE.error(case, tensors, (chosen.flip(1), weights.flip(1) * 2.5)) < 1e-12
    wrong = chosen.clone()
    wrong[0, 0] = next(e for e in range(256) if e not in chosen[0])
    assert MOE_GATE.error(case, tensors, (wrong, weights)) > MOE_GATE.tolerance


def test_rows_are_sorted_by_expert_and_keep_their_order():
    x = torch.tensor([[10.0], [20.0], [30.0]])
    rows, counts = sort_rows(x, torch.tensor([[2, 0], [0, 1], [2, 1]]), 4)

    assert rows.flatten().tolist() == [10, 20, 20, 30, 10, 30]
    assert counts.tolist() == [2, 2, 2, 0]


def test_swapped_rows_are_found(cpu, generator):
    case = Case(moved("moe_permute", {"tokens": 5, "experts": 8, "top_k": 2, "hidden": 16}, 1.0), V3)
    tensors = MOE_PERMUTE.make(case, cpu, generator)
    rows, counts = MOE_PERMUTE.backends[0].build(case, tensors)()

    assert MOE_PERMUTE.error(case, tensors, (rows, counts)) == 0
    assert MOE_PERMUTE.error(case, tensors, (rows.flip(0), counts)) > 0
