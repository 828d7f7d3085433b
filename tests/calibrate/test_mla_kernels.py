"""Multi-head latent attention: both forms are one function, and the timed cores are parts of it."""

# ruff: noqa: E402 (torch is optional: without it the module is skipped before the rest is imported)

import math
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'tokenworks[calibrate]'")

from calibrate.cases import Case
from calibrate.kernels import torch_attention
from calibrate.kernels.mla import (
    MLA_DECODE,
    MLA_PREFILL,
    absorbed_attention,
    expanded_attention,
    gather_pages,
    reference_decode,
    reference_prefill,
)
from sim.catalog import model
from sim.model import operations as ops

V3 = model("deepseek-v3")


def inputs(dtype, generator, queries=5, keys=37, heads=4):
    shapes = {"q": (queries, heads, 192), "latent": (keys, 512), "rope": (keys, 64), "up": (heads, 256, 512)}
    made = {n: torch.randn(s, generator=generator, dtype=torch.float64) for n, s in shapes.items()}
    made["up"] /= math.sqrt(512)
    return {name: value.to(dtype) for name, value in made.items()}


def relative(found, expected):
    return float((found.double() - expected.double()).norm() / expected.double().norm())


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_the_absorbed_form_equals_the_expanded_one(dtype, bound, generator):
    given = inputs(dtype, generator)

    assert relative(absorbed_attention(**given, nope=128), expanded_attention(**given, nope=128)) < bound


@pytest.mark.parametrize("attention", [absorbed_attention, expanded_attention])
def test_one_key_gives_its_value_whatever_the_query(attention, generator):
    given = inputs(torch.float64, generator, queries=1, keys=1)

    output = attention(**given, nope=128)

    value = given["up"][:, 128:] @ given["latent"][0]  # softmax over one key is 1
    assert torch.allclose(output[0], value, rtol=1e-12)


@pytest.mark.parametrize("attention", [absorbed_attention, expanded_attention])
def test_a_query_of_zeros_gives_the_mean_of_the_values_it_may_see(attention, generator):
    given = inputs(torch.float64, generator, queries=2, keys=3) | {
        "q": torch.zeros(2, 4, 192, dtype=torch.float64)
    }

    output = attention(**given, nope=128)

    for query, visible in ((0, 2), (1, 3)):  # the two queries are the last of three positions
        mean = given["latent"][:visible].mean(0)
        assert torch.allclose(output[query], given["up"][:, 128:] @ mean, rtol=1e-12)


def test_the_decode_core_between_two_projections_is_the_whole_attention(cpu, generator):
    case = Case(ops.mla_decode(4, 2, 70, 2, 512, 64, 1152, "bf16"), V3)
    tensors = dict(MLA_DECODE.make(case, cpu, generator))
    up = torch.randn(4, 256, 512, generator=generator, dtype=torch.float64) / math.sqrt(512)
    queries = torch.randn(2, 2, 4, 192, generator=generator, dtype=torch.float64)
    absorbed = torch.einsum("bshn,hnc->bshc", queries[..., :128], up[:, :128])
    tensors["q"] = torch.cat([absorbed, queries[..., 128:]], -1)

    core = reference_decode(case, tensors, torch.arange(4)).view(2, 2, 4, 512)
    output = torch.einsum("bshc,hvc->bshv", core, up[:, 128:])

    for sequence in range(2):
        cache = gather_pages(tensors, sequence, 70).double()
        whole = expanded_attention(queries[sequence], cache[:, :512], cache[:, 512:], up, 128)
        assert relative(output[sequence], whole) < 1e-12


def test_the_prefill_core_on_expanded_keys_is_the_whole_attention(cpu, generator):
    given = inputs(torch.float64, generator, queries=6, keys=20)
    case = Case(ops.mla_prefill(4, 1, 6, 14, 192, 128, "bf16"), V3)
    keys = torch.einsum("lc,hnc->lhn", given["latent"], given["up"][:, :128])
    k = torch.cat([keys, given["rope"][:, None].expand(-1, 4, -1)], -1)
    v = torch.einsum("lc,hvc->lhv", given["latent"], given["up"][:, 128:])
    tensors = {"q": given["q"][None], "k": k[None], "v": v[None]}

    core = reference_prefill(case, tensors, torch.arange(6))

    assert relative(core, expanded_attention(**given, nope=128)) < 1e-12


def torch_backend(family, case):
    return next(b for b in family.backends if b.cpu and case.operation.dtype in b.dtypes)


@pytest.mark.parametrize(
    "operation",
    [
        ops.mla_decode(16, 2, 130, 1, 512, 64, 1152, "bf16"),
        ops.mla_decode(16, 1, 64, 3, 512, 64, 1152, "bf16"),
        ops.mla_decode(8, 3, 100, 1, 512, 64, 576, "fp8"),
    ],
)
def test_torch_decodes_as_the_reference(operation, cpu, generator):
    case = Case(operation, V3)
    tensors = MLA_DECODE.make(case, cpu, generator)

    output = torch_backend(MLA_DECODE, case).build(case, tensors)()

    assert MLA_DECODE.error(case, tensors, output) < MLA_DECODE.tolerance


@pytest.mark.parametrize(("new", "cached"), [(9, 0), (9, 23), (1, 40)])
def test_torch_prefills_as_the_reference(new, cached, cpu, generator):
    case = Case(ops.mla_prefill(4, 2, new, cached, 192, 128, "bf16"), V3)
    tensors = MLA_PREFILL.make(case, cpu, generator)

    output = torch_backend(MLA_PREFILL, case).build(case, tensors)()

    assert MLA_PREFILL.error(case, tensors, output) < MLA_PREFILL.tolerance


def test_prefill_takes_one_kernel_with_and_without_a_prefix(cpu, generator, monkeypatch):
    """Whole prompt: causal. Behind a prefix: causal over the new tokens and unmasked over the prefix."""
    calls = []

    def attend(q, k, v, causal, scale):
        calls.append((k.shape[2], causal))
        return flash(q, k, v, causal, scale)

    flash = torch_attention._flash
    monkeypatch.setattr(torch_attention, "_flash", attend)
    for new, cached in ((9, 0), (9, 23)):
        case = Case(ops.mla_prefill(4, 1, new, cached, 192, 128, "bf16"), V3)
        tensors = MLA_PREFILL.make(case, cpu, generator)
        torch_backend(MLA_PREFILL, case).build(case, tensors)()
    assert calls == [(9, True), (9, True), (23, False)]


def test_attention_over_two_halves_is_merged_by_log_sum_exp():
    """Keys with scores 0, 0 | ln 6: weights 1/8, 1/8, 6/8. Values 1, 3 | 5 -> 1/8 + 3/8 + 30/8 = 4.25."""
    first, second = torch.full((1, 1, 1, 1), 2.0), torch.full((1, 1, 1, 1), 5.0)
    logs = torch.tensor(2.0).log().view(1, 1, 1), torch.tensor(6.0).log().view(1, 1, 1)
    assert torch_attention.merge(first, logs[0], second, logs[1]).item() == pytest.approx(4.25)


def test_a_decode_that_reads_one_key_too_many_is_found(cpu, generator):
    """The entries behind the context are large, so that they show."""
    case = Case(ops.mla_decode(16, 1, 65, 1, 512, 64, 1152, "bf16"), V3)
    tensors = MLA_DECODE.make(case, cpu, generator)
    longer = Case(replace(case.operation, shape={**case.operation.shape, "context": 66}), V3)

    output = torch_backend(MLA_DECODE, case).build(longer, tensors)()

    assert MLA_DECODE.error(case, tensors, output) > MLA_DECODE.tolerance


def test_an_output_with_an_unwritten_row_is_wrong(cpu, generator):
    case = Case(ops.mla_decode(16, 20, 64, 1, 512, 64, 1152, "bf16"), V3)
    tensors = MLA_DECODE.make(case, cpu, generator)
    output = torch_backend(MLA_DECODE, case).build(case, tensors)().clone()
    output.view(20, -1)[13] = float("nan")

    assert MLA_DECODE.error(case, tensors, output) == float("inf")
