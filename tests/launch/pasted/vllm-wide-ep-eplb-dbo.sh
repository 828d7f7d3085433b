#!/bin/bash
# on h200
# DeepSeek-V3.1 on one H200 node
export VLLM_USE_DEEP_GEMM=1
export VLLM_ALL2ALL_BACKEND="deepep_low_latency"
export HF_HUB_OFFLINE=1

vllm serve deepseek-ai/DeepSeek-V3.1 \
    --tensor-parallel-size 1 \
    --data-parallel-size 8 \
    --data-parallel-size-local 8 \
    --enable-expert-parallel \
    --enable-eplb \
    --eplb-config '{"window_size":1000,"step_interval":3000,"num_redundant_experts":32,"log_balancedness":true}' \
    --max-model-len 32768 \
    --gpu-memory-utilization 0.9 \
    --max-num-seqs 512 \
    --enable-dbo --dbo-decode-token-threshold 32 \
    --async-scheduling \
    --compilation_config '{"pass_config":{"enable_fusion":true},"cudagraph_mode":"FULL_DECODE_ONLY"}' \
    --port 8000 2>&1 | tee vllm.log
