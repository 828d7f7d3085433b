"""Texts as people paste them (`pasted/`, written anew; the GPU stands in the first line): scripts with arrays and
variables, containers, Slurm, MPI, SSH, Kubernetes, Dynamo. By hand: model, weights, KV cache, drafts, and pools as
(workers, GPUs, TP, EP, seats per GPU, chunk).
"""

import re
from pathlib import Path

import pytest
from launches import Pools, at, launch, pools_of

from sim.launch.read import Launch
from sim.scenario.errors import ScenarioError

FOLDER = Path(__file__).with_name("pasted")

Expected = tuple[str, str, str, int, Pools]
PASTED: dict[str, Expected] = {
    "array-of-arguments.sh": ("deepseek-v3.1", "fp8", "bf16", 0, {"serve": (1, 8, 1, 1, 2048, 1024)}),
    "branches-and-mpirun.sh": ("deepseek-r1-0528", "fp8", "fp8", 0, {"serve": (1, 8, 8, 8, 256, 4096)}),
    "docker-entrypoint-bash.sh": ("deepseek-r1-0528", "nvfp4", "fp8", 0, {"serve": (1, 4, 4, 1, 32, 16384)}),
    "docker-image-is-the-command.sh": ("deepseek-v3.2", "fp8", "bf16", 0, {"serve": (1, 8, 8, 1, 128, 16384)}),
    "dynamo-sglang-prefill-decode.sh": (
        *("deepseek-r1", "fp8", "bf16", 0),
        {"prefill": (1, 8, 1, 8, None, 1024), "decode": (1, 8, 1, 8, 2048, None)},
    ),
    "dynamo-trtllm-engine-files.sh": (
        *("deepseek-r1", "nvfp4", "fp8", 0),
        {"prefill": (1, 4, 1, 4, 8, 4224), "decode": (1, 16, 1, 16, 64, None)},
    ),
    "dynamo-vllm-modes.sh": (
        *("deepseek-v3.1", "fp8", "bf16", 0),
        {"prefill": (1, 8, 8, 8, None, 8192), "decode": (1, 8, 8, 8, 128, None)},
    ),
    "dynamo-vllm-plain-worker-decodes.sh": (
        *("deepseek-r1", "fp8", "bf16", 0),
        {"prefill": (1, 16, 1, 16, None, 8192), "decode": (1, 16, 1, 16, 256, None)},
    ),
    "eval-of-a-variable.sh": ("deepseek-v3.1", "fp8", "bf16", 0, {"serve": (1, 8, 8, 1, 256, 8192)}),
    "kubectl-bash-lc.sh": ("deepseek-r1-0528", "fp8", "bf16", 0, {"serve": (1, 8, 8, 8, 32, 16384)}),
    "kubernetes-block.yaml": (
        *("deepseek-r1", "fp8", "bf16", 0),
        {"prefill": (1, 8, 8, 8, None, 16384), "decode": (1, 16, 1, 16, 512, None)},
    ),
    "llm-d-hybrid-lb.sh": ("deepseek-r1-0528", "fp8", "bf16", 0, {"serve": (1, 16, 1, 16, 1024, 8192)}),
    "mpirun-trtllm-mtp-relaxed.sh": ("deepseek-r1-0528", "fp8", "fp8", 3, {"serve": (1, 8, 1, 8, 512, 8192)}),
    "podman-sglang.sh": ("deepseek-v3.2", "fp8", "bf16", 0, {"serve": (1, 8, 8, 1, 256, 8192)}),
    "ray-pipeline.sh": ("deepseek-r1", "fp8", "bf16", 0, {"serve": (1, 16, 16, 1, 64, 8192)}),
    "served-name-unset-nodes.sh": ("deepseek-r1", "fp8", "bf16", 0, {"serve": (1, 16, 16, 1, 128, 8192)}),
    "sglang-b300-fp4-deepep-mtp.sh": ("deepseek-v3.2", "nvfp4", "fp8", 3, {"serve": (1, 4, 1, 4, 12, 4096)}),
    "sglang-deepep-old-flags.sh": ("deepseek-v3", "fp8", "bf16", 0, {"serve": (1, 8, 1, 8, 256, 8192)}),
    "sglang-dp-attention-long-chunks.sh": ("deepseek-r1-0528", "fp8", "bf16", 0, {"serve": (1, 8, 1, 1, 128, 16384)}),
    "sglang-gb200-prefill-decode.sh": (
        *("deepseek-r1-0528", "fp8", "bf16", 0),
        {"prefill": (1, 8, 1, 8, 512, 4096), "decode": (1, 32, 1, 32, 512, None)},
    ),
    "sglang-hicache-nohup.sh": ("deepseek-r1", "fp8", "bf16", 0, {"serve": (1, 8, 8, 1, 256, 8192)}),
    "sglang-newest-names.sh": ("deepseek-v3.2", "fp8", "fp8", 0, {"serve": (1, 8, 1, 8, 125, 4096)}),
    "sglang-odd-seats-whole-prompts.sh": ("deepseek-r1-0528", "fp8", "bf16", 2, {"serve": (1, 16, 16, 1, None, 16384)}),
    "sglang-serve-v3.2-trtllm-kernels.sh": ("deepseek-v3.2", "fp8", "fp8", 0, {"serve": (1, 8, 8, 8, 32, 32768)}),
    "sglang-two-nodes-mtp.sh": ("deepseek-v3.1-terminus", "fp8", "bf16", 3, {"serve": (1, 16, 16, 1, 3, 8192)}),
    "sglang-v3.2-mtp-dp-attention.sh": ("deepseek-v3.2-exp", "fp8", "bf16", 3, {"serve": (1, 8, 1, 1, 6, 1024)}),
    "slurm-nodes.sh": ("deepseek-r1", "fp8", "bf16", 0, {"serve": (1, 16, 16, 1, 128, 8192)}),
    "srun-env-sglang-fp4.sh": ("deepseek-r1-0528", "nvfp4", "fp8", 0, {"serve": (1, 4, 4, 1, 32, 16384)}),
    "srun-pmix-bash-trtllm.sh": ("deepseek-v3.2", "nvfp4", "bf16", 0, {"serve": (1, 16, 16, 16, 16, 8192)}),
    "ssh-sums.sh": ("deepseek-r1-0528", "fp8", "bf16", 0, {"serve": (1, 16, 1, 1, 2048, 512)}),
    "sudo-docker-awq.sh": ("deepseek-r1", "fp8", "bf16", 0, {"serve": (1, 8, 8, 1, 128, 8192)}),
    "trtllm-disaggregated-servers.sh": (
        *("deepseek-v3.1", "fp8", "bf16", 0),
        {"prefill": (2, 4, 4, 4, None, 8192), "decode": (1, 8, 8, 8, 256, None)},
    ),
    "v4-docker-mega-moe-dspark.sh": (
        *("deepseek-v4-pro-0813", "mxfp4", "fp8_fp4", 6), {"serve": (1, 4, 1, 4, 1024, 16384)},
    ),
    "v4-dynamo-sglang-mega-moe.sh": (
        *("deepseek-v4-pro", "mxfp4", "fp8", 0),
        {"prefill": (1, 4, 1, 4, None, 8192), "decode": (1, 8, 1, 8, 512, None)},
    ),
    "v4-sglang-dspark.sh": ("deepseek-v4-pro-0813", "mxfp4", "fp8", 5, {"serve": (1, 4, 4, 1, 64, 4096)}),
    "v4-sglang-mega-moe-by-variable.sh": ("deepseek-v4-flash", "mxfp4", "fp8", 3, {"serve": (1, 4, 1, 4, 64, 4096)}),
    "v4-trtllm-mega-moe.sh": ("deepseek-v4-pro", "mxfp4", "fp8", 1, {"serve": (1, 8, 1, 8, 512, 8448)}),
    "v4-vllm-prefill-decode.sh": (
        *("deepseek-v4-pro", "mxfp4", "fp8_fp4", 2),
        {"prefill": (1, 8, 1, 8, None, 32768), "decode": (1, 8, 1, 8, 512, None)},
    ),
    "variable-of-arguments.sh": ("deepseek-v3.1", "fp8", "bf16", 0, {"serve": (1, 8, 8, 8, 32, 8192)}),
    "vllm-api-server-underscores.sh": ("deepseek-v3", "fp8", "bf16", 0, {"serve": (1, 8, 8, 1, 8, 8192)}),
    "vllm-config-file.sh": ("deepseek-v3.2-exp", "fp8", "fp8", 2, {"serve": (1, 8, 8, 8, 128, 8192)}),
    "vllm-config-kernels-heredoc.sh": ("deepseek-r1-0528", "fp8", "fp8", 1, {"serve": (1, 8, 8, 8, 64, 16384)}),
    "vllm-fp4-offload-nohup.sh": ("deepseek-v3.2", "nvfp4", "fp8", 0, {"serve": (1, 8, 4, 8, 256, 32000)}),
    "vllm-eager-no-chunks.sh": ("deepseek-v3-0324", "fp8", "bf16", 0, {"serve": (1, 16, 1, 16, 1024, 8192)}),
    "vllm-gb200-nvlink-two-sided.sh": ("deepseek-r1", "nvfp4", "fp8", 0, {"serve": (1, 4, 1, 4, 1024, 16384)}),
    "vllm-tp8-dp2-two-nodes.sh": ("deepseek-v3-0324", "fp8", "bf16", 0, {"serve": (1, 16, 8, 16, 128, 8192)}),
    "vllm-uv-dotted-flags.sh": ("deepseek-v3.2", "fp8", "bf16", 1, {"serve": (1, 8, 8, 1, 125, 16384)}),
    "vllm-wide-ep-eplb-dbo.sh": ("deepseek-v3.1", "fp8", "bf16", 0, {"serve": (1, 8, 1, 8, 512, 8192)}),
}  # fmt: skip


def pasted(name: str) -> Launch:
    text = (FOLDER / name).read_text(encoding="utf-8")
    gpu = re.search(r"^# on (\w+)$", text, re.MULTILINE)
    assert gpu is not None
    return launch(text, gpu[1])


@pytest.mark.parametrize("name", PASTED)
def test_a_pasted_text_gives_what_the_engine_would_have(name: str) -> None:
    model, weights, kv_cache, drafts, pools = PASTED[name]
    found = pasted(name)
    assert pools_of(found.scenario) == pools
    assert found.scenario["model"] == model
    assert found.scenario["precision"]["weights"] == weights
    assert found.scenario["precision"]["kv_cache"] == kv_cache
    assert at(found.scenario, "speculation.draft_tokens") == drafts
    assert [told.flag for told in found.not_modelled if "no flag that is known" in told.why] == []


def test_every_text_is_looked_at() -> None:
    assert {file.name for file in FOLDER.iterdir()} == set(PASTED)
    assert len(PASTED) >= 25


KEYS: dict[str, dict[str, object]] = {
    # Prompts run without graphs there; steps of answers keep theirs.
    "sglang-gb200-prefill-decode.sh": {
        "scheduling.cuda_graphs": None, "scheduling.prefill_graph_tokens": 0, "router": "random",
    },
    "dynamo-trtllm-engine-files.sh": {"scheduling.cuda_graphs": None, "scheduling.prefill_graph_tokens": 0},
    "trtllm-disaggregated-servers.sh": {"router": "least_loaded"},
    "dynamo-sglang-prefill-decode.sh": {"router": "prefix_aware"},
    "dynamo-vllm-plain-worker-decodes.sh": {
        "router": "round_robin", "overlap.two_batch": True, "deployment.decode.experts": {"redundant": 32},
    },
    "vllm-eager-no-chunks.sh": {"scheduling.cuda_graphs": False, "scheduling.whole_prompts": True},
    "sglang-newest-names.sh": {
        "deployment.serve.exchange": "all_to_all", "scheduling.prefill_graph_tokens": 0,
        "prefix_cache.block_tokens": None,
    },
    "sglang-odd-seats-whole-prompts.sh": {
        "deployment.serve.max_batch_per_rank": 100, "scheduling.whole_prompts": True, "prefix_cache.host_gb": 200.0,
    },
    "v4-docker-mega-moe-dspark.sh": {
        "deployment.serve.moe_backend": "mega_moe", "deployment.serve.exchange": "all_to_all",
        "speculation.method": "dspark", "prefix_cache.block_tokens": 256,
    },
    # MegaMoE of V4-Flash is in no table: tokens are exchanged all to all nevertheless.
    "v4-sglang-mega-moe-by-variable.sh": {
        "deployment.serve.moe_backend": None, "deployment.serve.exchange": "all_to_all",
    },
    "v4-dynamo-sglang-mega-moe.sh": {
        "deployment.prefill.moe_backend": "mega_moe", "deployment.decode.moe_backend": "mega_moe",
        "scheduling.waits_for_prefill_answer": False, "router": "prefix_aware",
    },
    "v4-sglang-dspark.sh": {"deployment.serve.moe_backend": "trtllm_gen", "speculation.method": "dspark"},
    "v4-trtllm-mega-moe.sh": {
        "deployment.serve.moe_backend": "mega_moe", "deployment.serve.exchange": "all_to_all",
        "indexer.dense_threshold": 4096, "prefix_cache.block_tokens": 128,
    },
    "v4-vllm-prefill-decode.sh": {
        "deployment.prefill.moe_backend": None, "deployment.decode.moe_backend": "mega_moe",
        "scheduling.poll_every_steps": 4, "scheduling.prefill_graph_tokens": 0,
    },
    "vllm-config-kernels-heredoc.sh": {"deployment.serve.moe_backend": "trtllm_gen", "prefix_cache.enabled": False},
    "vllm-fp4-offload-nohup.sh": {
        "deployment.serve.moe_backend": "cutlass", "deployment.serve.experts": {"redundant": 32},
        "indexer.logits_gb": 1.074, "prefix_cache.host_gb": 687.195, "overlap.two_batch": True,
    },
    "vllm-api-server-underscores.sh": {"scheduling.whole_prompts": True},
    "vllm-wide-ep-eplb-dbo.sh": {"deployment.serve.exchange": "all_to_all", "deployment.serve.memory_fraction": 0.9},
}  # fmt: skip


@pytest.mark.parametrize("name", KEYS)
def test_what_a_pasted_text_says_besides(name: str) -> None:
    found = pasted(name).scenario
    assert {key: at(found, key) for key in KEYS[name]} == KEYS[name]


SGLANG = "python3 -m sglang.launch_server --model-path deepseek-ai/DeepSeek-V3 "
BROKEN = {
    "inside a quoted command": (
        f'bash -c "{SGLANG}--tp eight"',
        "command:1:84: --tp takes a whole number from 1, got 'eight'",
    ),
    "in the second line of a quoted command": (
        f"ssh node1 '\n  {SGLANG}\\\n    --tp 8 --dp 3 --enable-dp-attention'",
        "command:3:12: --dp 3 does not divide 8",
    ),
    "a dash of a web page": (
        "vllm serve deepseek-ai/DeepSeek-R1 \u2013tp 8",
        "command:1:36: '\u2013tp' begins with a dash that is no hyphen",
    ),
    "arguments that nobody set": (
        "vllm serve deepseek-ai/DeepSeek-R1 $ARGS",
        "command:1:36: $ARGS is not known here",
    ),
    "an array that nobody set": (f'{SGLANG}"${{ARGS[@]}}"', "command:1:70: $ARGS is not known here"),
    "an array that is never closed": ("ARGS=(--tp 8", "command:1:6: the bracket ( that opens here"),
    "arguments that only a branch sets": (
        f'if [ "$X" ]; then ARGS="--enable-dp-attention"; fi\n{SGLANG}--tp 8 $ARGS',
        "command:2:77: $ARGS is not known here",
    ),
    "a server that no list names": (
        "cat > s.yaml <<EOF\ncontext_servers: {urls: ['a:1']}\nEOF\n"
        + "trtllm-serve deepseek-ai/DeepSeek-R1 --tp_size 8 --port 7\n" * 2
        + "trtllm-serve disaggregated -c s.yaml",
        "command:4:50: port 7 is none of the servers",
    ),
    "a list of servers that is not there": (
        "trtllm-serve deepseek-ai/DeepSeek-R1 --tp_size 8 --port 7\n" * 2
        + "trtllm-serve disaggregated -c nowhere.yaml",
        "command:3:14: nowhere.yaml: no such file",
    ),
    "a side that Dynamo has not": (
        "python3 -m dynamo.vllm --model deepseek-ai/DeepSeek-R1 -tp 8 --disaggregation-mode both",
        "command:1:62: --disaggregation-mode both: expected one of agg, prefill, decode",
    ),
    "a model that neither path nor name tells": (
        "vllm serve /model --served-model-name mine -tp 8",
        "command:1:12: unknown model 'model'",
    ),
    "another engine": ("lmdeploy serve api_server deepseek-ai/DeepSeek-V3 --tp 8", "command:1:1: no launch command"),
    "a command in a Compose file": (
        "services:\n  vllm:\n    image: vllm/vllm-openai\n    command: --model deepseek-ai/DeepSeek-R1 -tp 8",
        "command:1:1: no launch command here; expected vllm serve, python -m sglang.launch_server or trtllm-serve; "
        "`command:` and `args:` of a YAML file are not put together",
    ),
    "no keys in Dynamo's override": (
        "python3 -m dynamo.trtllm --model deepseek-ai/DeepSeek-R1 --override-engine-args '[1]'",
        "--override-engine-args:1:1: expected keys and values",
    ),
    "a wrong word in Dynamo's override": (
        "python3 -m dynamo.trtllm --model deepseek-ai/DeepSeek-R1 "
        "--override-engine-args '{\"tensor_parallel_size\": \"x\"}'",
        "--override-engine-args:1:26: tensor_parallel_size takes a whole number from 1, got 'x'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_broken_is_one_error_with_its_place(case: str) -> None:
    text, message = BROKEN[case]
    with pytest.raises(ScenarioError) as caught:
        launch(text)
    assert str(caught.value).startswith(message)


def test_what_is_printed_starts_nothing() -> None:
    text = f"echo 'start it with: {SGLANG}--tp 4'\n{SGLANG}--tp 8"
    assert pools_of(launch(text).scenario)["serve"][:3] == (1, 8, 8)
