"""Launch commands as people post them, written anew after the engines' own documentation, give the layout, precision,
drafts and seats that the engine would have. By hand: GPU, model, pools as (workers, GPUs, TP, EP, seats per GPU,
chunk), and weights, KV cache, drafts.
"""

import pytest
from launches import Pools, at, launch, pools_of

DEEPEP_PD = """
# 1 prefill node and 2 decode nodes, Mooncake between them
MODEL=/models/DeepSeek-R1
python3 -m sglang.launch_server --model-path $MODEL --trust-remote-code --disaggregation-mode prefill \\
  --disaggregation-ib-device mlx5_1 --host $PREFILL_IP --port 30000 --tp-size 8 --dp-size 8 --enable-dp-attention \\
  --moe-a2a-backend deepep --deepep-mode normal --mem-fraction-static 0.85 --chunked-prefill-size 65536 \\
  --ep-num-redundant-experts 32 --enable-eplb --enable-two-batch-overlap --disable-radix-cache &
for rank in 0 1; do
SGLANG_DEEPEP_NUM_MAX_DISPATCH_TOKENS_PER_RANK=256 python3 -m sglang.launch_server --model-path $MODEL \\
  --disaggregation-mode decode --dist-init-addr $DECODE_IP:5757 --nnodes 2 --node-rank $rank --tp-size 16 \\
  --dp-size 16 --enable-dp-attention --moe-a2a-backend deepep --deepep-mode low_latency --mem-fraction-static 0.8 \\
  --max-running-requests 4096 --cuda-graph-max-bs 256 --ep-num-redundant-experts 32 --enable-eplb
done
"""
NIXL_PD = """
# prefill
VLLM_NIXL_SIDE_CHANNEL_PORT=5600 vllm serve deepseek-ai/DeepSeek-V3.2 -tp 8 --port 8100 \\
  --max-num-batched-tokens 16384 --kv-transfer-config '{"kv_connector":"NixlConnector","kv_role":"kv_both"}' &
# decode
VLLM_NIXL_SIDE_CHANNEL_PORT=5601 vllm serve deepseek-ai/DeepSeek-V3.2 -tp 1 -dp 8 --port 8200 \\
  --enable-expert-parallel --all2all-backend deepep_low_latency --max-num-seqs 256 \\
  --kv-transfer-config '{"kv_connector":"NixlConnector","kv_role":"kv_both"}' &
vllm-router --vllm-pd-disaggregation --prefill http://localhost:8100 --decode http://localhost:8200 --policy round_robin
"""
TRT_PD = """
cat >ctx.yaml <<EOF
disable_overlap_scheduler: true
enable_attention_dp: true
kv_cache_config: {dtype: fp8, free_gpu_memory_fraction: 0.75}
cache_transceiver_config: {backend: UCX}
EOF
cat >gen.yaml <<EOF
enable_attention_dp: true
kv_cache_config: {dtype: fp8, free_gpu_memory_fraction: 0.8}
cuda_graph_config: {enable_padding: true, max_batch_size: 128}
speculative_config: {decoding_type: MTP, num_nextn_predict_layers: 1}
cache_transceiver_config: {backend: UCX}
EOF
trtllm-serve nvidia/DeepSeek-R1-FP4 --tp_size 4 --ep_size 4 --server_role CONTEXT --extra_llm_api_options ctx.yaml &
trtllm-serve nvidia/DeepSeek-R1-FP4 --tp_size 8 --ep_size 8 --server_role GENERATION --max_batch_size 128 \\
  --extra_llm_api_options gen.yaml &
trtllm-serve disaggregated -c disagg.yaml
"""
TRT_THROUGHPUT = """
EXTRA=extra.yml
cat > $EXTRA << EOF
cuda_graph_config: {enable_padding: true, batch_sizes: [1, 2, 4, 8, 16, 32, 64, 128, 256, 384]}
print_iter_log: true
kv_cache_config: {dtype: fp8}
enable_attention_dp: true
speculative_config:
  decoding_type: MTP
  num_nextn_predict_layers: 1
EOF
trtllm-serve nvidia/DeepSeek-R1-FP4 --host localhost --port 8000 --backend pytorch --max_batch_size 384 \\
  --max_num_tokens 1536 --tp_size 8 --ep_size 8 --pp_size 1 --extra_llm_api_options $EXTRA
"""
SGLANG = "python3 -m sglang.launch_server --model-path deepseek-ai/"
TWO_NODES = (
    SGLANG
    + "DeepSeek-V3 --tp 16 --dist-init-addr 192.168.0.2:5000 --nnodes 2 --node-rank {} --trust-remote-code"
)

POSTED: dict[str, tuple[str, str, str, Pools, tuple[str, str, int]]] = {
    "H200, SGLang, TP8": (
        SGLANG + "DeepSeek-V3 --tp 8 --trust-remote-code",
        "h200",
        "deepseek-v3",
        {"serve": (1, 8, 8, 1, 256, 8192)},
        ("fp8", "bf16", 0),
    ),
    "H100, SGLang, TP16 over two nodes": (
        TWO_NODES.format(0) + "\n" + TWO_NODES.format(1),
        "h100",
        "deepseek-v3",
        {"serve": (1, 16, 16, 1, 128, 8192)},
        ("fp8", "bf16", 0),
    ),
    "H200, SGLang, DP attention": (
        SGLANG + "DeepSeek-V3.2 --tp 8 --dp 8 --enable-dp-attention --tool-call-parser deepseekv32",
        "h200",
        "deepseek-v3.2",
        {"serve": (1, 8, 1, 1, 2048, 1024)},
        ("fp8", "bf16", 0),
    ),
    "H200, SGLang, DP attention without a size": (
        SGLANG + "DeepSeek-R1-0528 --tp-size 8 --enable-dp-attention",
        "h200",
        "deepseek-r1-0528",
        {"serve": (1, 8, 8, 1, 256, 8192)},
        ("fp8", "bf16", 0),
    ),
    "H200, SGLang, EP with DeepEP": (
        SGLANG
        + "DeepSeek-V3.1 --tp 8 --dp 8 --enable-dp-attention --moe-a2a-backend deepep --deepep-mode auto "
        "--mem-fraction-static 0.85 --cuda-graph-max-bs 128",
        "h200",
        "deepseek-v3.1",
        {"serve": (1, 8, 1, 8, 2048, 1024)},
        ("fp8", "bf16", 0),
    ),
    "H200, SGLang, MTP": (
        SGLANG + "DeepSeek-V3-0324 --tp 8 --speculative-algorithm EAGLE --speculative-num-steps 1 "
        "--speculative-eagle-topk 1 --speculative-num-draft-tokens 2",
        "h200",
        "deepseek-v3-0324",
        {"serve": (1, 8, 8, 1, 6, 8192)},
        ("fp8", "bf16", 1),
    ),
    "H200, SGLang, V3.2 with MTP and DP attention": (
        SGLANG + "DeepSeek-V3.2 --tp 8 --dp 8 --enable-dp-attention --speculative-algorithm EAGLE "
        "--speculative-num-steps 3 --speculative-eagle-topk 1 --speculative-num-draft-tokens 4 "
        "--max-running-requests 256 --kv-cache-dtype fp8_e4m3",
        "h200",
        "deepseek-v3.2",
        {"serve": (1, 8, 1, 1, 32, 1024)},
        ("fp8", "fp8", 3),
    ),
    "B200, SGLang, FP4": (
        "SGLANG_ENABLE_JIT_DEEPGEMM=false PYTHONUNBUFFERED=1 python -m sglang.launch_server "
        "--model-path nvidia/DeepSeek-R1-0528-FP4-V2 --trust-remote-code --tp 4 --dp 1 --ep 4 "
        "--quantization modelopt_fp4 --kv-cache-dtype fp8_e4m3 --attention-backend trtllm_mla "
        "--moe-runner-backend flashinfer_trtllm "
        "--mem-fraction-static 0.85 --max-running-requests 64 --chunked-prefill-size 16384 --disable-radix-cache "
        "--scheduler-recv-interval 10",
        "b200",
        "deepseek-r1-0528",
        {"serve": (1, 4, 4, 4, 16, 16384)},
        ("nvfp4", "fp8", 0),
    ),
    "B200, SGLang, V3.2": (
        SGLANG + "DeepSeek-V3.2-Exp --tp 8 --dp 8 --enable-dp-attention",
        "b200",
        "deepseek-v3.2-exp",
        {"serve": (1, 8, 1, 1, 2048, 2048)},
        ("fp8", "fp8", 0),
    ),
    "H100, SGLang, disaggregated over Mooncake": (
        DEEPEP_PD,
        "h200",
        "deepseek-r1",
        {"prefill": (1, 8, 1, 8, None, 8192), "decode": (1, 16, 1, 16, 256, None)},
        ("fp8", "bf16", 0),
    ),
    "H200, vLLM, TP8": (
        "vllm serve deepseek-ai/DeepSeek-V3.1 --enable-expert-parallel --tensor-parallel-size 8 --seed 1",
        "h200",
        "deepseek-v3.1",
        {"serve": (1, 8, 8, 8, 128, 8192)},
        ("fp8", "bf16", 0),
    ),
    "H200, vLLM, wide EP on one node": (
        "vllm serve deepseek-ai/DeepSeek-V3-0324 --tensor-parallel-size 1 --data-parallel-size 8 "
        "--enable-expert-parallel --all2all-backend deepep_low_latency",
        "h200",
        "deepseek-v3-0324",
        {"serve": (1, 8, 1, 8, 1024, 8192)},
        ("fp8", "bf16", 0),
    ),
    "H200, vLLM, wide EP on two nodes": (
        "vllm serve deepseek-ai/DeepSeek-V3-0324 -dp 16 --data-parallel-size-local 8 --data-parallel-address 10.1.0.1 "
        "--data-parallel-rpc-port 13345 --enable-expert-parallel --api-server-count=8\n"
        "vllm serve deepseek-ai/DeepSeek-V3-0324 -dp 16 --data-parallel-size-local 8 --data-parallel-start-rank 8 "
        "--data-parallel-address 10.1.0.1 --data-parallel-rpc-port 13345 --enable-expert-parallel --headless",
        "h200",
        "deepseek-v3-0324",
        {"serve": (1, 16, 1, 16, 1024, 8192)},
        ("fp8", "bf16", 0),
    ),
    "H200, vLLM, MTP": (
        "vllm serve deepseek-ai/DeepSeek-R1 -tp 8 --max-num-seqs 64 --kv-cache-dtype fp8 "
        '--speculative-config \'{"method": "mtp", "num_speculative_tokens": 1}\'',
        "h200",
        "deepseek-r1",
        {"serve": (1, 8, 8, 1, 8, 8192)},
        ("fp8", "fp8", 1),
    ),
    "B200, vLLM, FP4": (
        "VLLM_USE_FLASHINFER_MOE_FP4=1 vllm serve nvidia/DeepSeek-V3.1-NVFP4 -tp 4 --kv-cache-dtype fp8 "
        "--max-num-batched-tokens 8192 --max-num-seqs 512 --async-scheduling --no-enable-prefix-caching",
        "b200",
        "deepseek-v3.1",
        {"serve": (1, 4, 4, 1, 128, 8192)},
        ("nvfp4", "fp8", 0),
    ),
    "H200, vLLM, disaggregated over NIXL": (
        NIXL_PD,
        "h200",
        "deepseek-v3.2",
        {"prefill": (1, 8, 8, 1, None, 16384), "decode": (1, 8, 1, 8, 256, None)},
        ("fp8", "bf16", 0),
    ),
    "H100, vLLM, TP16 with Ray": (
        "vllm serve deepseek-ai/DeepSeek-R1 --tensor-parallel-size 16 --distributed-executor-backend ray",
        "h100",
        "deepseek-r1",
        {"serve": (1, 16, 16, 1, 64, 8192)},
        ("fp8", "bf16", 0),
    ),
    "H200, TensorRT-LLM": (
        "trtllm-serve deepseek-ai/DeepSeek-V3.2 --tp_size 8 --ep_size 8 --custom_tokenizer deepseek_v32",
        "h200",
        "deepseek-v3.2",
        {"serve": (1, 8, 8, 8, 256, 8192)},
        ("fp8", "bf16", 0),
    ),
    "B200, TensorRT-LLM, FP4 for throughput with MTP": (
        TRT_THROUGHPUT,
        "b200",
        "deepseek-r1",
        {"serve": (1, 8, 1, 8, 384, 1536)},
        ("nvfp4", "fp8", 1),
    ),
    "GB200, TensorRT-LLM, disaggregated": (
        TRT_PD,
        "gb200",
        "deepseek-r1",
        {"prefill": (1, 4, 1, 4, None, 8192), "decode": (1, 8, 1, 8, 128, None)},
        ("nvfp4", "fp8", 1),
    ),
    "B200, TensorRT-LLM, started by MPI": (
        "mpirun -n 8 --oversubscribe --allow-run-as-root trtllm-llmapi-launch trtllm-serve deepseek-ai/DeepSeek-R1 "
        "--tp_size 8 --ep_size 8 --max_batch_size 512 --kv_cache_free_gpu_memory_fraction 0.85 > server.log 2>&1 &",
        "b200",
        "deepseek-r1",
        {"serve": (1, 8, 8, 8, 64, 8192)},
        ("fp8", "bf16", 0),
    ),
}


@pytest.mark.parametrize("case", POSTED)
def test_a_posted_command_gives_what_the_engine_would_have(case: str) -> None:
    text, gpu, model, pools, (weights, kv_cache, drafts) = POSTED[case]
    scenario = launch(text, gpu).scenario
    assert pools_of(scenario) == pools
    assert scenario["model"] == model
    assert (scenario["precision"]["weights"], scenario["precision"]["kv_cache"]) == (weights, kv_cache)
    assert at(scenario, "speculation.draft_tokens") == drafts


def test_twenty_commands_and_more_are_read() -> None:
    assert len(POSTED) > 20


def test_what_a_disaggregated_service_says_besides() -> None:
    found = launch(DEEPEP_PD, "h200")
    assert at(found.scenario, "deployment.decode.exchange") == "all_to_all"
    assert at(found.scenario, "deployment.decode.experts") == {"redundant": 32}
    assert at(found.scenario, "prefix_cache.enabled") is False
    told = {one.flag for one in found.not_modelled}
    # Two half batches are said of the prompts alone, and a scenario has one key for both pools.
    assert told == {"SGLANG_DEEPEP_NUM_MAX_DISPATCH_TOKENS_PER_RANK=256", "--enable-two-batch-overlap"}
    assert at(found.scenario, "overlap") is None
    assert any("branches and loops were not decided: every command counts" in note for note in found.notes)


def test_a_routers_policy_and_addresses_count() -> None:
    pair = (
        "python -m sglang.launch_server --model-path deepseek-ai/DeepSeek-R1 --tp 8 --disaggregation-mode prefill\n"
        "python -m sglang.launch_server --model-path deepseek-ai/DeepSeek-R1 --tp 8 --disaggregation-mode decode\n"
        "python -m sglang_router.launch_router --pd-disaggregation --policy cache_aware "
        "--prefill http://a:30000 8998 --prefill http://b:30000 8998 --decode http://c:30000\n"
    )
    scenario = launch(pair).scenario
    assert scenario["router"] == "prefix_aware"
    assert {role: one["workers"] for role, one in scenario["deployment"].items()} == {
        "prefill": 2,
        "decode": 1,
    }
