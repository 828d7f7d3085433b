"""The names that people write stand for the catalog's: those of the Hugging Face Hub, of vendors, of nvidia-smi."""

import pytest

from sim import catalog
from sim.scenario.loading import parse

SCENARIO = """\
model: {model}
gpu: {gpu}
engine: {engine}
deployment: {{serve: {{gpus: 8, ep: 8}}}}
workload:
  requests: 4
  arrivals: {{poisson: {{rate_per_s: 2}}}}
  lengths: {{input: {{constant: 1000}}, output: {{constant: 50}}}}
"""


@pytest.mark.parametrize(
    ("written", "means"),
    [
        ("deepseek-ai/DeepSeek-V3.2", "deepseek-v3.2"),
        ("deepseek-ai/DeepSeek-V3.2-Exp", "deepseek-v3.2"),
        ("deepseek-ai/DeepSeek-R1-0528", "deepseek-v3"),
        ("DeepSeek-AI/deepseek-v3.1-TERMINUS", "deepseek-v3"),
        ("moonshotai/Kimi-K2-Instruct-0905", "kimi-k2"),
        ("Qwen/Qwen3-235B-A22B", "qwen3-235b-a22b"),
        ("DeepSeek-R1", "deepseek-v3"),
    ],
)
def test_a_model_by_its_name_on_the_hub(written: str, means: str) -> None:
    assert catalog.model(written).name == means
    scenario = parse(SCENARIO.format(model=written, gpu="h200", engine="sglang")).scenario
    assert catalog.model(scenario.model).name == means
    assert "/" not in scenario.model


@pytest.mark.parametrize("written", ["nvidia/DeepSeek-R1-FP4", "deepseek-ai/DeepSeek-R1-Distill-Qwen-32B"])
def test_another_checkpoint_is_not_taken_for_one_of_ours(written: str) -> None:
    with pytest.raises(catalog.UnknownName, match="deepseek-r1"):
        catalog.model(written)


@pytest.mark.parametrize(
    ("written", "means"),
    [
        ("H200", "h200_sxm"),
        ("h200", "h200_sxm"),
        ("H200-SXM", "h200_sxm"),
        ("NVIDIA H100 80GB HBM3", "h100_sxm"),
        ("gb200", "gb200_nvl72"),
        ("GB200 NVL72", "gb200_nvl72"),
    ],
)
def test_a_gpu_however_it_is_written(written: str, means: str) -> None:
    assert catalog.gpu(written).name == means


@pytest.mark.parametrize(
    ("written", "means"),
    [
        ("vLLM", "vllm"),
        ("SGLang", "sglang"),
        ("TensorRT-LLM", "trtllm"),
        ("trt-llm", "trtllm"),
        ("TRTLLM", "trtllm"),
    ],
)
def test_an_engine_by_its_own_spelling(written: str, means: str) -> None:
    assert catalog.engine(written).name == means
    assert parse(SCENARIO.format(model="deepseek-v3", gpu="h200", engine=written)).scenario.engine == means


@pytest.mark.parametrize("kind", ["model", "gpu", "engine"])
def test_every_alias_leads_to_something(kind: str) -> None:
    look_up = {"model": catalog.model, "gpu": catalog.gpu, "engine": catalog.engine}[kind]
    for alias, known in catalog.aliases(kind).items():
        assert look_up(alias.upper()).name == known
