"""Logs and traces of an engine become a profile that prices whole steps as they were timed, and says so."""

import gzip
import json
import sqlite3

import pytest
import yaml
from typer.testing import CliRunner

from calibrate.cli import app
from calibrate.step.fitting import fit_steps, typical
from calibrate.step.formats import OTHER, family_of, formats
from calibrate.step.reading import read_steps
from calibrate.step.timed import Beside, NoSteps, TimedStep
from sim.catalog import model
from sim.cost.whole_steps import steps_named
from sim.deployment.plan import resolve
from sim.explain import explain
from sim.kernels import FAMILIES
from sim.scenario.errors import DeploymentError
from sim.scenario.loading import load
from sim.simulation import simulate
from sim.step.pricing import pool_step_cost
from sim.step.stand_ins import pricing_notes

V32 = model("deepseek-v3.2")
LAYERS = V32.layers


def decode_s(sequences, context, layers=LAYERS):
    """A step that was made up: seconds of itself, and of each layer by sequences and keys."""
    return 1.6e-3 + layers * (3e-4 + 1.5e-6 * sequences + 1e-10 * sequences * context)


def prefill_s(tokens, layers=LAYERS):
    """Likewise, of one prompt with nothing before it."""
    return 2e-3 + layers * (2.5e-4 + 3e-7 * tokens + 2e-11 * tokens * (tokens + 1) / 2)


def sglang_decode(sequences, context, seconds, steps=40):
    rate = sequences / seconds
    return (
        f"[2026-11-04 05:32:32 DP3 TP24 EP24] Decode batch, #running-req: {sequences}, #token: {sequences * context}, "
        f"token usage: 0.10, cuda graph: True, gen throughput (token/s): {rate:.4f}, #queue-req: 0"
    )


def sglang_prefill(tokens, seconds, queue=3, cached=0):
    return (
        f"[2025-12-30 15:52:38 DP0 TP0 EP0] Prefill batch, #new-seq: 1, #new-token: {tokens}, #cached-token: {cached}, "
        f"token usage: 0.78, #running-req: 0, #queue-req: {queue}, #prealloc-req: 0, #inflight-req: 0, "
        f"input throughput (token/s): {tokens / seconds:.4f}, cuda graph: False"
    )


LOADS = [(sequences, context) for sequences in (1, 8, 32, 64) for context in (1000, 4000)]
PROMPTS = (512, 1024, 2048, 4096, 8192)


def sglang_log(path, layers=LAYERS):
    lines = [sglang_decode(*at, decode_s(*at, layers)) for at in LOADS for _ in range(3)]
    lines += [sglang_prefill(tokens, prefill_s(tokens, layers)) for tokens in PROMPTS for _ in range(3)]
    path.write_text("\n".join(["server_args=...", *lines, "INFO: shutting down"]), encoding="utf-8")
    return path


def run(*arguments):
    """The command's last line as JSON, or what it said against it."""
    result = CliRunner().invoke(app, ["step", *map(str, arguments), "--json"])
    if result.exit_code:
        return result.exit_code, " ".join(result.stderr.split())
    return json.loads(result.stdout.splitlines()[-1])


def scenario(*changes):
    small = ["duration_s=20", "warmup_s=2", "deployment.serve.workers=1", "workload.arrivals.poisson.rate_per_s=4"]
    return load("scenarios/chat.yaml", [*small, *map(str, changes)]).scenario


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    folder = tmp_path_factory.mktemp("steps")
    run(sglang_log(folder / "sglang.log"), "--out", folder / "profile")
    return folder / "profile"


# From files to timed steps.


def test_a_decode_line_of_sglang_is_a_step_behind_one_of_as_many_sequences(tmp_path):
    lines = [
        sglang_decode(7, 1000, 0.030),  # the first: who knows since when
        sglang_decode(7, 1005, 0.031),
        sglang_prefill(64, 0.02).replace("DP0", "DP3"),
        sglang_decode(7, 1010, 0.050),  # a prompt between
        sglang_decode(8, 1000, 0.032),  # another batch
        sglang_decode(8, 1005, 0.033).replace("cuda graph", "accept len: 2.00, accept rate: 0.60, cuda graph"),
        "[2025-06-03 17:55:56 DP3] Decode batch. #running-req: 8, #token: 8080, token usage: 0.82, "
        "gen throughput (token/s): 200.00, #queue-req: 317",  # as releases of 2024 wrote it
        "[2025-06-03 17:55:57 DP4] Decode batch. #running-req: 8, #token: 8080, token usage: 0.82, "
        "gen throughput (token/s): 400.00, #queue-req: 317",  # another rank
    ]
    (path := tmp_path / "log").write_text("\n".join(lines))
    found = read_steps(path, Beside())
    assert [(step.sequences, step.context) for step in found] == [(7, 1005), (8, 1005), (8, 1010)]
    assert [step.seconds for step in found] == pytest.approx([0.031, 0.066, 0.04], rel=1e-3)


def test_a_prefill_line_of_sglang_is_a_step_while_requests_wait(tmp_path):
    lines = [
        sglang_prefill(512, 9.0),
        sglang_prefill(512, 0.040, cached=100),
        sglang_prefill(256, 0.030),  # of these or those tokens, by release
        sglang_prefill(256, 0.020, queue=0),
        sglang_prefill(256, 5.0),  # nothing was waiting
    ]
    (path := tmp_path / "log").write_text("\n".join(lines))
    first, second = read_steps(path, Beside())
    assert (first.tokens, first.held, first.seconds) == (512, 612, pytest.approx(0.040, rel=1e-3))
    assert first.pairs == 512 * 100 + 512 * 513 / 2
    assert (second.tokens, second.pairs, second.seconds) == (256, 256 * 257 / 2, pytest.approx(0.020, rel=1e-3))


VLLM = (
    "(EngineCore_DP0 pid=7) INFO 11-30 09:00:00 [core.py:400] Iteration({i}): {prompts} context requests, {tokens} context "
    "tokens, {sequences} generation requests, {sequences} generation tokens, iteration elapsed time: {ms:.2f} ms{usage}"
)
CACHE = "INFO 11-30 08:59:00 [kv_cache_utils.py:1087] GPU KV cache size: 1,000,000 tokens"


def vllm(sequences, ms, prompts=0, tokens=0, usage=""):
    return VLLM.format(i=1, prompts=prompts, tokens=tokens, sequences=sequences, ms=ms, usage=usage)


def test_an_iteration_of_vllm_is_a_step(tmp_path):
    lines = [CACHE, vllm(10, 25.0, usage=", GPU KV cache usage: 4.0%"), vllm(0, 31.0, 2, 600), vllm(0, 20.0)]
    (path := tmp_path / "log").write_text("\n".join(lines))
    decode, prefill = read_steps(path, Beside())
    assert (decode.sequences, decode.context, decode.seconds) == (10, pytest.approx(4000), 0.025)
    assert (prefill.tokens, prefill.pairs, prefill.held) == (600, 600 * 301 / 2, 600)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([vllm(10, 25.0)], "--context"),
        ([vllm(10, 0.03), vllm(10, 25.0)], "--no-async-scheduling"),
        (["nothing of the kind"], "--enable-logging-iteration-details"),
    ],
)
def test_a_log_that_does_not_tell_is_refused_with_what_to_do(tmp_path, lines, said):
    (path := tmp_path / "log").write_text("\n".join(lines))
    code, told = run(path, "--out", tmp_path / "out")
    assert code == 2 and said in told and path.name in told
    assert not (tmp_path / "out").exists()


def test_a_context_may_be_said_beside_the_file(tmp_path):
    (path := tmp_path / "log").write_text(vllm(10, 25.0))
    assert read_steps(path, Beside(context=3000))[0].context == 3000


@pytest.mark.parametrize("content", [b"\x1f\x8b not gzip", b'{"traceEvents": 3}', b"SQLite format 3\0", b"\xff\xfe"])
def test_a_broken_file_is_refused_and_not_a_crash(tmp_path, content):
    (path := tmp_path / "trace.json").write_bytes(content)
    with pytest.raises(NoSteps, match=r"trace\.json: expected"):
        read_steps(path, Beside())


def test_a_kineto_trace_of_torch_prices_its_own_steps(tmp_path):
    """On a CPU, where operators stand for kernels. Three loads tell three factors, which must give them back."""
    torch = pytest.importorskip("torch")
    from torch.profiler import ProfilerActivity, profile, record_function

    weights, threads = torch.randn(128, 128), torch.get_num_threads()

    def work(sequences, context):
        with record_function(f"tokenworks sequences={sequences} context={context}"):
            for _ in range(20 + 10 * sequences + 5 * sequences * context // 1000):
                weights @ weights

    loads = [(2, 500), (8, 500), (8, 4000)]
    torch.set_num_threads(1)
    with profile(activities=[ProfilerActivity.CPU]) as traced:
        for _ in range(7):
            for at in loads:
                work(*at)
    torch.set_num_threads(threads)
    traced.export_chrome_trace(str(tmp_path / "trace.json"))
    (packed := tmp_path / "trace.json.gz").write_bytes(gzip.compress((tmp_path / "trace.json").read_bytes()))
    told = run(packed, "--gpus", 1, "--tp", 1, "--out", tmp_path / "profile")
    assert told["steps"]["decode"]["steps"] == 21
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
            base.execute("INSERT INTO NVTX_EVENTS VALUES (?, ?, ?, NULL, ?)", (host, host + 900, mark, owner + 5))
            each = round(decode_s(*at) * 1e9 * (1 + device)) // len(KERNELS)  # the second rank is twice as slow
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
    for i, at_us in enumerate((0.0, 100.0, 200.0)):  # on the GPU: 5,000 us each; 200 us between, then a long pause
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


# From timed steps to a profile, and to a price.


def test_two_depths_tell_a_layer_and_the_step(tmp_path):
    files = [sglang_log(tmp_path / f"{layers}.log", layers) for layers in (4, 8)]
    told = run("--layers", 4, files[0], "--layers", 8, files[1], "--out", tmp_path / "profile")
    assert told["steps"]["layers"] == LAYERS and told["steps"]["depths"] == [4, 8]
    own = scenario(f"profile={tmp_path / 'profile'}")
    for at in ((1, 1000), (32, 2000), (64, 4000)):
        assert explain(own, "decode", *at).step_s == pytest.approx(decode_s(*at), rel=0.01)
    for tokens in PROMPTS:
        assert explain(own, "prefill", tokens).step_s == pytest.approx(prefill_s(tokens), rel=0.02)


def test_depths_that_differ_in_dense_layers_are_refused(tmp_path):
    files = [sglang_log(tmp_path / f"{layers}.log", layers) for layers in (3, 8)]
    code, said = run("--layers", 3, files[0], "--layers", 8, files[1], "--out", tmp_path / "profile")
    assert code == 2 and "more than the 3 dense layers" in said


def test_one_depth_alone_is_no_profile_of_the_model(tmp_path):
    run("--layers", 4, sglang_log(tmp_path / "4.log", 4), "--out", tmp_path / "profile")
    with pytest.raises(DeploymentError, match="4 layers, not 61"):
        explain(scenario(f"profile={tmp_path / 'profile'}"), "decode")


def test_prompts_beside_decoding_sequences_are_fitted_as_they_are_simulated():
    """Linear work on all tokens as in prefill, the attention of both."""
    decode = [TimedStep(decode_s(*at), *at) for at in LOADS]
    alone = [TimedStep(prefill_s(t), tokens=t, pairs=t * (t + 1) / 2, held=t) for t in PROMPTS]
    beside = [
        TimedStep(prefill_s(t) + LAYERS * (3e-7 * 64 + 1e-10 * 64 * 4000), 64, 4000, t, t * (t + 1) / 2, t)
        for t in PROMPTS
    ]
    both = fit_steps([*decode, *alone, *beside], V32, 1, 1, LAYERS)["prefill"]
    assert both.loads == 10
    assert both.error["p90"] < 0.02


def test_interrupted_steps_do_not_matter_where_a_load_comes_often(tmp_path):
    steps = [TimedStep(decode_s(*at) * times, *at) for at in LOADS for times in (1.0, 1.0, 3.0)]
    assert fit_steps(steps, V32, 1, 1, LAYERS)["decode"].error["p90"] < 0.01


def test_a_run_names_the_profile_and_tags_its_price(own):
    result = simulate(scenario(f"profile={own}")).json()
    shares = result["priced_by"]
    assert shares["fitted"] + shares["extrapolated"] == pytest.approx(1)
    assert shares["fitted"] > 0.9
    assert result["expected_error"] is None
    notes = [*pricing_notes(resolve(scenario(f"profile={own}")))]
    assert len(notes) == 2 and all("whole steps of" in note and "sglang.log" in note for note in notes)
    told = explain(scenario(f"profile={own}"), "decode", 32, 4000).json()
    assert [o["group"] for o in told["operations"]] == ["attention", "other"]
    assert all("whole decode steps of" in o["source"] for o in told["operations"])
    assert told["step_s"] == pytest.approx(decode_s(32, 4000), rel=0.01)


def test_the_simulation_asks_for_the_same_seconds(own):
    """Surface, estimate and `explain` know whole steps by the same two operations."""
    cost = pool_step_cost(resolve(scenario(f"profile={own}")), "serve")
    core_s = cost.decode_table(32).attention(32, 4000.0)[0]
    assert cost.decode_table(32).line(32, 32.0).seconds(core_s) == pytest.approx(decode_s(32, 4000), rel=0.01)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (["model=deepseek-v3.1"], "model deepseek-v3.2, not deepseek-v3"),
        (["speculation.draft_tokens=1"], "draft tokens 0, not 1"),
        (["deployment.serve.tp=1", "deployment.serve.ep=8"], "tp 8 and ep 1, not 8 GPUs with tp 1 and ep 8"),
    ],
)
def test_steps_of_another_service_are_refused(own, change, said):
    with pytest.raises(DeploymentError) as refused:
        simulate(scenario(f"profile={own}", *change))
    assert said in str(refused.value)


def test_a_pool_of_another_layout_is_priced_by_kernels_and_said_so(own):
    pools = ["deployment={prefill: {workers: 1, gpus: 8, tp: 8, ep: 1}, decode: {workers: 1, gpus: 8, tp: 1, ep: 8}}"]
    split = load("scenarios/chat.yaml", [*pools, "duration_s=20", "warmup_s=2", f"profile={own}"]).scenario
    assert any("decode pool's layout: priced by kernels" in note for note in pricing_notes(resolve(split)))
    assert len(explain(split, "prefill", 1024).operations) == 2
    shares = simulate(split).json()["priced_by"]
    assert shares["measured"] > 0.1 and shares["fitted"] > 0.1


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ({"decode": None}, "expected the steps that"),
        ({"gpus": "many"}, "invalid literal"),
        ({"families": 3}, "expected the steps that"),
    ],
)
def test_a_header_that_was_damaged_is_refused(own, tmp_path, damage, said):
    header = yaml.safe_load((own / "profile.yaml").read_text())
    header["steps"] |= damage
    (tmp_path / "profile.yaml").write_text(yaml.safe_dump(header))
    with pytest.raises(DeploymentError, match=said):
        simulate(scenario(f"profile={tmp_path}"))


def test_show_prints_the_profile(own):
    result = CliRunner().invoke(app, ["show", str(own), "--json"])
    assert result.exit_code == 0
    assert json.loads(result.stdout.splitlines()[-1])["steps"]["model"] == "deepseek-v3.2"
    assert steps_named(str(own)).phases["decode"].loads == len(LOADS)


# Families of kernels.


@pytest.mark.parametrize(
    ("kernel", "family"),
    [
        *((name, family) for family, name in KERNELS.items()),
        ("void deep_gemm::sm90_fp8_gemm_1d2d_impl<...>", "gemm"),
        ("deep_gemm::sm90_fp8_paged_mqa_logits<...>", "index_logits"),
        ("void deep_ep::internode_ll::dispatch<true, 7168>", "dispatch"),
        ("void deep_ep::internode_ll::combine<true, 7168, 9>", "combine"),
        ("void flashinfer::trtllm_allreduce_fusion::allreduce_fusion_kernel_oneshot_lamport<...>", "all_reduce"),
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
    beside = {"moe_gate", "moe_permute", "moe_finalise"}  # what calibrate times beside the simulator's families
    assert {family for family, _ in formats()["families"]["patterns"]} <= {*FAMILIES, *beside}
    for section in ("lines", "marks"):
        assert all(entry["source"] for entry in formats()[section].values())
