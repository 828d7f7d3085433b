"""Traces become profiles that price their own steps; kernels belong to the step that launched them, and to a family."""

import gzip
import json
import sqlite3

import pytest
from made_up_steps import LOADS, decode_s, run, scenario

from calibrate.step.fitting import typical
from calibrate.step.formats import OTHER, family_of, formats
from calibrate.step.reading import read_steps
from calibrate.step.timed import Beside
from sim.explain import explain
from sim.kernels import FAMILIES


def test_a_kineto_trace_of_torch_prices_its_own_steps(tmp_path):
    """On a CPU, where operators stand for kernels. The loads differ so much that no busy machine makes them equal."""
    torch = pytest.importorskip("torch")
    profiler = pytest.importorskip("torch.profiler")
    weights, threads = torch.randn(128, 128), torch.get_num_threads()

    def work(sequences, context):
        with profiler.record_function(f"tokenworks sequences={sequences} context={context}"):
            for _ in range(20 * sequences):
                weights @ weights

    loads = [(2, 500), (8, 2000)]
    torch.set_num_threads(1)
    with profiler.profile(activities=[profiler.ProfilerActivity.CPU]) as traced:
        for _ in range(7):
            for at in loads:
                work(*at)
    torch.set_num_threads(threads)
    traced.export_chrome_trace(str(tmp_path / "trace.json"))
    (packed := tmp_path / "trace.json.gz").write_bytes(gzip.compress((tmp_path / "trace.json").read_bytes()))
    told = run(packed, "--gpus", 1, "--tp", 1, "--out", tmp_path / "profile")
    assert told["steps"]["decode"]["steps"] == 14
    assert [*told["steps"]["families"]["decode"]] == ["gemm"]
    one = scenario(f"profile={tmp_path / 'profile'}", "gpu=b300", "deployment.serve.gpus=1", "deployment.serve.tp=1",
                   "allow_foreign_profile=true")  # fmt: skip
    for step in typical(read_steps(packed, Beside())):
        priced = explain(one, "decode", step.sequences, round(step.context))
        assert priced.step_s == pytest.approx(step.seconds, rel=0.05)


KERNELS = {  # family -> a kernel of it
    "mla_decode": "flash_fwd_splitkv_mla_kernel<Traits>",
    "moe": "void deep_gemm::sm90_fp8_m_grouped_gemm_masked_1d2d",
    "gemm": "nvjet_tst_128x256_64x4_1x2_h_bz_coopA_TNT",
    "all_reduce": "ncclDevKernel_AllReduce_Sum_bf16_RING_LL(ncclDevKernelArgsStorage<4096ul>)",
}


def nsys_export(path, process=77 << 24):
    """Two ranks of steps whose kernels run long after their marks, as a host that is ahead launches them."""
    base = sqlite3.connect(path)
    base.executescript(
        "CREATE TABLE StringIds (id INTEGER PRIMARY KEY, value TEXT);"
        "CREATE TABLE NVTX_EVENTS (start INT, end INT, text TEXT, textId INT, globalTid INT);"
        "CREATE TABLE CUPTI_ACTIVITY_KIND_RUNTIME (start INT, end INT, correlationId INT, globalTid INT);"
        "CREATE TABLE CUPTI_ACTIVITY_KIND_KERNEL (start INT, end INT, deviceId INT, streamId INT, correlationId INT, "
        "demangledName INT, shortName INT, globalPid INT);"
    )
    base.executemany("INSERT INTO StringIds VALUES (?, ?)", enumerate(KERNELS.values(), 1))
    for device in (0, 1):
        host, gpu, number, owner = 1_000, 900_000_000, 0, process + (device << 24)
        for at in (*LOADS, *LOADS):
            mark = f"tokenworks sequences={at[0]} context={at[1]}"
            base.execute(
                "INSERT INTO NVTX_EVENTS VALUES (?, ?, ?, NULL, ?)", (host, host + 900, mark, owner + 5)
            )
            each = round(decode_s(*at) * 1e9 * (1 + device)) // len(
                KERNELS
            )  # the second rank is twice as slow
            for name in range(1, len(KERNELS) + 1):
                number += 1
                launch = (host + 10 * name, host + 10 * name + 5, number, owner + 5)
                base.execute("INSERT INTO CUPTI_ACTIVITY_KIND_RUNTIME VALUES (?, ?, ?, ?)", launch)
                kernel = (gpu, gpu + each - 1_000, device, 7, number, name, name, owner)
                base.execute("INSERT INTO CUPTI_ACTIVITY_KIND_KERNEL VALUES (?, ?, ?, ?, ?, ?, ?, ?)", kernel)
                gpu += each
            host += 1_000
    base.commit()
    base.close()
    return path


def test_an_nsys_export_prices_its_own_steps_and_those_between(tmp_path):
    told = run(nsys_export(tmp_path / "trace.sqlite"), "--out", tmp_path / "profile")
    families = told["steps"]["families"]["decode"]
    assert {*families} == {*KERNELS}
    assert max(families.values()) == pytest.approx(min(families.values()), rel=1e-6)
    for at in (*LOADS, (16, 2000), (48, 3000)):
        priced = explain(scenario(f"profile={tmp_path / 'profile'}"), "decode", *at)
        assert priced.step_s == pytest.approx(decode_s(*at), rel=0.05)


def test_kernels_of_a_kineto_trace_belong_to_the_mark_that_launched_them(tmp_path):
    """vLLM's marks on the host; kernels run later, and the next step's first ends a step unless the engine was idle."""
    events, correlation = [], 0
    for i, at_us in enumerate(
        (0.0, 100.0, 200.0)
    ):  # on the GPU: 5,000 us each; 200 us between, then a long pause
        name = f"execute_context_0(0)_generation_{4 * (i + 1)}({4 * (i + 1)})"
        events.append({"ph": "X", "cat": "user_annotation", "name": name, "ts": 1.7e15 + at_us, "dur": 50.0})
        start = 1.7e15 + (10_000.0, 15_200.0, 90_000.0)[i]
        for kernel, dur in (("fused_moe_kernel", 3_000.0), ("nvjet_tst", 2_000.0)):
            correlation += 1
            launch = {"correlation": correlation}
            ran = {"ph": "X", "cat": "kernel", "name": kernel, "ts": start, "dur": dur, "args": launch}
            host = {"ph": "X", "cat": "cuda_runtime", "name": "cudaLaunchKernel", "ts": 1.7e15 + at_us + 9, "dur": 1,
                    "args": launch}  # fmt: skip
            events += [ran, host]
            start += dur
    (path := tmp_path / "trace.json").write_text(json.dumps({"traceEvents": events}))
    found = read_steps(path, Beside(context=1000))
    assert [step.seconds for step in found] == pytest.approx([5.2e-3, 5e-3, 5e-3])
    assert found[0].families == pytest.approx({"moe": 3e-3, "gemm": 2e-3})


# Families of kernels.


@pytest.mark.parametrize(
    ("kernel", "family"),
    [
        *((name, family) for family, name in KERNELS.items()),
        (
            "void deep_gemm::sm90_fp8_gemm_1d2d_impl<0u, 4096u, 1024u, 1u, (deep_gemm::GemmType)0, ...>",
            "gemm",
        ),
        (
            "void deep_gemm::fp8_gemm_kernel<4096u, 7168u, 256u, 128u, true, (deep_gemm::GemmType)2>(...)",
            "moe",
        ),
        ("sm100::decode::head64::flash_fwd_splitkv_mla_fp8_sparse_kernel<...>", "sparse_mla_decode"),
        ("sparse_attn_fwd_kernel", "sparse_mla_prefill"),
        ("topk_transform_prefill_kernel", "index_topk"),
        ("void dpsk::ep::internode::cached_notify<false>(int, int)", "dispatch"),
        ("void cutlass::device_kernel<dpsk::grouped_gemm::cuda::fp8_ptp128c::GemmKernel>(...)", "moe"),
        ("void cuda::reduce_fused_impl<__nv_bfloat16, false, false>(int4 const*)", "moe_finalise"),
        ("concat_mla_absorb_q_kernel", "elementwise"),
        ("deep_gemm::sm90_fp8_paged_mqa_logits<...>", "index_logits"),
        ("void deep_ep::internode_ll::dispatch<true, 7168>", "dispatch"),
        ("void deep_ep::internode_ll::combine<true, 7168, 9>", "combine"),
        (
            "void flashinfer::trtllm_allreduce_fusion::allreduce_fusion_kernel_oneshot_lamport<...>",
            "all_reduce",
        ),
        ("per_token_group_quant_8bit_kernel<...>", "quantize"),
        ("void sglang::act_and_mul_kernel<__nv_bfloat16, (sglang::ActivationKind)0>", "elementwise"),
        ("moe_align_block_size_kernel", "moe_permute"),
        ("fused_moe_kernel", "moe"),
        ("moe_fused_gate_kernel<...>", "moe_gate"),
        ("_w8a8_block_fp8_matmul", "gemm"),
        ("aten::scaled_dot_product_attention", "mla_prefill"),
        ("what_nobody_knows", OTHER),
    ],
)
def test_kernels_are_known_by_their_names(kernel, family):
    assert family_of(kernel) == family


def test_every_pattern_is_of_a_family():
    beside = {
        "moe_gate",
        "moe_permute",
        "moe_finalise",
    }  # what calibrate times beside the simulator's families
    assert {family for family, _ in formats()["families"]["patterns"]} <= {*FAMILIES, *beside}
    for section in ("lines", "marks"):
        assert all(entry["source"] for entry in formats()[section].values())
