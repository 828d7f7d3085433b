"""Adapters against stand-ins for the packages: what each release asks for, checked as its own sources check it."""

# ruff: noqa: E402 (torch is optional: without it the module is skipped before the rest is imported)

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch", reason="needs torch: pip install 'tokenworks[calibrate]'")

from calibrate.cases import Case
from calibrate.environment import Device
from calibrate.grid import moved
from calibrate.kernels import backend as backends
from calibrate.kernels.families import FAMILIES
from calibrate.kernels.formats import (
    by_columns,
    dequantize_blocks,
    dequantize_groups,
    pack_exponents,
    quantize_groups,
    unpack_exponents,
)
from calibrate.kernels.library import Needs
from calibrate.kernels.routing import select_experts
from calibrate.measure import find_points
from sim.catalog import model
from sim.model import operations as ops

V32 = replace(model("deepseek-v3.2"), index_topk=64)
H200 = Device("cuda", "H200", 1, 2**37, 2**26, (9, 0), 132)


def scales_of(given, rows, groups, weight, blackwell):
    """FP32 scales [.., rows, groups], checked as `check_sf_layout` does (DeepGEMM 2.6.1, `csrc/utils/layout.hpp`)."""
    aligned = -(-rows // 4) * 4  # TMA wants 16 bytes
    if not blackwell:
        assert given.dtype == torch.float32
        if weight:
            assert given.is_contiguous()
            return given.repeat_interleave(128, -2)[..., :rows, :]
        assert given.shape[-2:] == (rows, groups)
    else:
        assert given.dtype == torch.int32
        assert given.shape[-2:] == (rows, -(-groups // 4))
        assert given.dim() == 2 or given.stride(-3) == given.stride(-1) * given.shape[-1]
    assert given.stride(-2) == 1 or rows == 1
    assert given.stride(-1) == aligned
    return unpack_exponents(given, groups) if blackwell else given


def product(x, w, blackwell):
    groups = x[0].shape[-1] // 128
    a = dequantize_groups(x[0], scales_of(x[1], x[0].shape[-2], groups, False, blackwell))
    b = dequantize_groups(w[0], scales_of(w[1], w[0].shape[-2], groups, True, blackwell))
    return a @ b.transpose(-1, -2)


@pytest.mark.parametrize(("m", "n", "k"), [(5, 300, 640), (1, 128, 128), (64, 576, 512)])
def test_deep_gemm_gets_scales_in_the_layout_of_its_gpu(m, n, k, gpu, install, backend, generator):
    blackwell = gpu.capability[0] == 10

    def fp8_gemm_nt(x, w, d, c=None, recipe=None, disable_ue8m0_cast=False):
        assert disable_ue8m0_cast is not blackwell
        d.copy_(product(x, w, blackwell))

    install("deep_gemm", fp8_gemm_nt=fp8_gemm_nt)
    case = Case(ops.gemm("", "dense", m, n, k, "fp8"), V32)
    tensors = FAMILIES["gemm"].make(case, gpu, generator)

    output = backend("gemm", "deep_gemm", case).build(case, tensors)()

    assert FAMILIES["gemm"].error(case, tensors, output) < 2e-5
    expected = (
        dequantize_groups(tensors["x"], tensors["x_scales"])
        @ dequantize_blocks(tensors["w"], tensors["w_scales"]).T
    )
    assert torch.allclose(output.float(), expected, rtol=0.02, atol=0.05)


@pytest.mark.parametrize("name", ["deep_gemm", "deep_gemm_masked"])
def test_both_grouped_products_get_their_layouts_and_agree(name, gpu, install, backend, generator):
    pytest.importorskip("triton", reason="needs triton: pip install 'tokenworks[kernels]'")
    from calibrate.kernels import triton_gemm  # noqa: PLC0415

    if not triton_gemm.INTERPRETED:
        pytest.skip("the activation runs in Triton's interpreter here")
    blackwell = gpu.capability[0] == 10

    def contiguous(x, w, d, groups, disable_ue8m0_cast=False):
        assert disable_ue8m0_cast is not blackwell
        every = product(x, w, blackwell)  # [experts, rows, n] by broadcasting
        rows = torch.arange(len(groups))
        d.copy_(every[groups.long().clamp(min=0), rows])

    def masked(x, w, d, filled, expected, disable_ue8m0_cast=False):
        assert expected >= 1
        d.copy_(torch.nan_to_num(product(x, w, blackwell)))

    install(
        "vllm.third_party.deep_gemm",
        m_grouped_fp8_gemm_nt_contiguous=contiguous,
        get_mk_alignment_for_contiguous_layout=lambda: 8,
        fp8_m_grouped_gemm_nt_masked=masked,  # the name before 2.1
    )
    case = Case(ops.routed_experts(20, 3, 2, 384, 384, "fp8"), V32)
    tensors = FAMILIES["moe"].make(case, gpu, generator)

    output = backend("moe", name, case).build(case, tensors)()()

    # The interpreter narrows to FP8 wrongly where a mantissa rounds up to the next power of two: 2e-3 of error.
    assert FAMILIES["moe"].error(case, tensors, output) < 5e-3


def test_what_an_engine_image_vendors_is_found_and_what_a_release_dropped_is_named(install, backend):
    needs = Needs(("deep_gemm", "vllm.third_party.deep_gemm"), ("fp8_gemm_nt", "new_name|old_name"))
    install("deep_gemm", fp8_gemm_nt=print)
    assert needs.missing == "deep_gemm has no new_name or old_name"
    install("vllm.third_party.deep_gemm", fp8_gemm_nt=len, old_name=abs)
    assert needs.missing is None
    assert needs.load() == (len, abs)  # both of one copy
    install("sgl_kernel", fast_topk_v2=print)
    case = Case(ops.index_topk(1, 1, 5000, 2048), V32)
    gate = Needs(("sgl_kernel",), ("moe_fused_gate",))
    assert gate.missing == "sgl_kernel has no moe_fused_gate"
    assert backend("index_topk", "sgl_kernel", case).refuses(case, H200) is None


def test_a_dropped_function_refuses_a_backend_once_and_no_point_is_planned_with_it(install):
    install("sgl_kernel", moe_fused_gate=print)
    cases = [Case(ops.index_topk(1, 1, context, 2048), V32) for context in (3000, 5000)]

    points, refusals = find_points(cases, H200)

    assert {point.backend.name for point in points} <= {"triton", "torch"}
    reasons = [r.reason for r in refusals if r.backend == "sgl_kernel"]
    assert reasons == ["sgl_kernel has no fast_topk_v2"]


def test_every_backend_that_is_not_torch_names_its_functions():
    for kernel, family in FAMILIES.items():
        for each in family.backends:
            own = each.name in ("torch", "cudnn", "nccl", "gloo")
            assert (each.needs is None) == own, (kernel, each.name)
            assert own or each.name == "triton" or each.needs.symbols, (kernel, each.name)
    assert backends.HOPPER == 9


def test_kernels_that_left_sgl_kernel_are_found_where_they_went(install, backend, generator, cpu):
    """SGLang's jit_kernel has the selection of keys; the old package without it does not stand in the way."""

    def fast_topk_v2(score, lengths, topk, row_starts=None):
        return score.topk(topk, -1).indices.int()

    install("sgl_kernel", something_else=print)
    install("sglang.jit_kernel.fast_topk", fast_topk_v2=fast_topk_v2)
    case = Case(ops.index_topk(2, 1, 200, 64), V32)
    tensors = FAMILIES["index_topk"].make(case, cpu, generator)
    found = backend("index_topk", "sgl_kernel", case)
    assert found.refuses(case, H200) is None
    assert FAMILIES["index_topk"].error(case, tensors, found.build(case, tensors)()) == 0.0


def test_the_engines_own_quantisation_gets_the_scales_of_its_gpu(gpu, install, backend, generator):
    blackwell = gpu.capability[0] == 10

    def sglang_per_token_group_quant_fp8(
        x, group_size, eps=1e-10, column_major_scales=False, scale_tma_aligned=False, scale_ue8m0=False
    ):
        assert group_size == 128 and column_major_scales and scale_tma_aligned
        assert scale_ue8m0 is blackwell
        values, scales = quantize_groups(x, scale_ue8m0)
        return values, pack_exponents(scales) if scale_ue8m0 else by_columns(scales)

    install(
        "sglang.srt.layers.quantization.fp8_kernel",
        sglang_per_token_group_quant_fp8=sglang_per_token_group_quant_fp8,
    )
    case = Case(ops.quantize("", "dense", 5, 512), V32)
    tensors = FAMILIES["quantize"].make(case, gpu, generator)
    output = backend("quantize", "sglang", case).build(case, tensors)()
    assert FAMILIES["quantize"].error(case, tensors, output) < 1e-4


def test_vllms_gate_takes_logits_and_bias(install, backend, generator, cpu):
    """`vllm/_custom_ops.py`, grouped_topk: values before indices."""

    def grouped_topk(
        scores, num_expert_group, topk_group, topk, renormalize, routed_scaling_factor, bias, scoring_func=0
    ):
        assert (num_expert_group, topk_group, topk, scoring_func) == (8, 4, 8, 1)
        assert renormalize is True and routed_scaling_factor == 1.0
        chosen, weights = select_experts(scores, bias, V32)
        return weights, chosen.int()

    install("vllm._custom_ops", grouped_topk=grouped_topk)
    case = Case(moved("moe_gate", {"tokens": 6, "experts": 256, "top_k": 8}, 1), V32)
    tensors = FAMILIES["moe_gate"].make(case, cpu, generator)
    output = backend("moe_gate", "vllm", case).build(case, tensors)()
    assert FAMILIES["moe_gate"].error(case, tensors, output) < 1e-6
    install("vllm._custom_ops", grouped_topk=lambda scores, scores_with_bias, num_expert_group, topk: None)
    (older,) = [b for b in FAMILIES["moe_gate"].backends if b.name == "vllm"]
    assert older.refuses(case, H200) == "has a grouped_topk that takes no bias"
