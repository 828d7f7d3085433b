"""MegaMoE, which is an exchange in SGLang and kernels in the others: both keys, by every name that it has."""

import pytest
from launches import at, launch

from sim.scenario.errors import ScenarioError

PRO = "deepseek-ai/DeepSeek-V4-Pro"
SGLANG = f"sglang serve --model-path {PRO} --tp 8 --dp 8 --enable-dp-attention"
VLLM = f"vllm serve {PRO} -dp 8 --enable-expert-parallel"
TRTLLM = (
    "cat > o.yaml <<EOF\nenable_attention_dp: true\nmoe_config: {backend: MEGAMOE_DEEPGEMM}\nEOF\n"
    f"trtllm-serve {PRO} --tp_size 8 --ep_size 8 --config o.yaml"
)
NAMED = {
    "SGLang's exchange": f"{SGLANG} --moe-a2a-backend megamoe",
    "its alias": f"{SGLANG} --moe-runner-backend megamoe",
    "its alias beats the exchange": f"{SGLANG} --moe-a2a-backend deepep --moe-runner-backend megamoe",
    "with the kernels that it is made of": f"{SGLANG} --moe-a2a-backend megamoe --moe-runner-backend deep_gemm",
    "a variable of 0.5.12 to 0.5.16": f"SGLANG_OPT_USE_DEEPGEMM_MEGA_MOE=1 {SGLANG}",
    "vLLM's kernels": f"{VLLM} --moe-backend deep_gemm_mega_moe",
    "hyphens": f"{VLLM} --moe-backend deep-gemm-mega-moe",
    "in the configuration of kernels": f"{VLLM} --kernel-config '{{\"moe_backend\": \"deep_gemm_mega_moe\"}}'",
    "dotted": f"{VLLM} --kernel-config.moe_backend=deep_gemm_mega_moe",
    "FlashInfer's call of the same kernel": f"{VLLM} --moe-backend flashinfer_moe_ep_mega_deep_gemm",
    "over an exchange that the kernels do not use": f"{VLLM} --moe-backend deep_gemm_mega_moe --all2all-backend pplx",
    "TensorRT-LLM's": TRTLLM,
}  # fmt: skip


@pytest.mark.parametrize("case", NAMED)
def test_it_is_kernels_and_exchange(case: str) -> None:
    found = launch(NAMED[case], "b300")
    serve = at(found.scenario, "deployment.serve")
    assert (serve["ep"], serve["exchange"], serve["moe_backend"]) == (8, "all_to_all", "mega_moe")
    assert [told.flag for told in found.not_modelled if "mega" in told.flag.lower()] == []


def test_a_variable_that_is_off_says_nothing() -> None:
    serve = at(launch(f"SGLANG_OPT_USE_DEEPGEMM_MEGA_MOE=0 {SGLANG}", "b300").scenario, "deployment.serve")
    assert serve.get("moe_backend") is None and serve["ep"] == 1


@pytest.mark.parametrize(
    ("text", "gpu", "says"),
    [
        (
            f"sglang serve --model-path {PRO} --tp 8 --moe-a2a-backend megamoe",
            "b300",
            "several attention ranks",
        ),
        (
            f"vllm serve {PRO} -tp 8 --enable-expert-parallel --moe-backend deep_gemm_mega_moe",
            "b300",
            "several att",
        ),
        (f"{SGLANG} --moe-a2a-backend megamoe --quantization modelopt_fp4", "b300", "unknown nvfp4 back-end"),
        (f"{SGLANG} --moe-a2a-backend flashinfer_megamoe", "b300", "were not measured"),
        (f"{VLLM.replace('-dp 8', '-dp 16')} --moe-backend deep_gemm_mega_moe", "b200", "on 2 node(s)"),
    ],
)
def test_where_it_is_not_priced_it_is_told_and_why(text: str, gpu: str, says: str) -> None:
    found = launch(text, gpu)
    pool = at(found.scenario, "deployment.serve")
    assert pool.get("moe_backend") is None
    assert [told.why for told in found.not_modelled if "mega" in told.flag and says in told.why]


def test_vllm_needs_expert_parallelism_for_it() -> None:
    text = f"vllm serve {PRO} -dp 8 --moe-backend deep_gemm_mega_moe"
    with pytest.raises(ScenarioError, match="needs --enable-expert-parallel") as caught:
        launch(text, "b300")
    assert caught.value.problems[0].column == text.index("--moe-backend") + 1
