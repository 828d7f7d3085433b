# on h200
# 16 GPUs for prompts, 16 for answers; in Dynamo before 1.0 the worker that says nothing decodes
python -m dynamo.frontend --router-mode round-robin &
SHARED="--model /cache/deepseek-r1 -tp 1 -dp 16 --enable-expert-parallel --enable-dbo --enable-eplb"
VLLM_USE_DEEP_GEMM=1 python3 -m dynamo.vllm $SHARED --all2all-backend deepep_low_latency --max-num-seqs 256 \
  --eplb-config '{"num_redundant_experts": "32", "window_size": "500"}' --data-parallel-hybrid-lb &
VLLM_USE_DEEP_GEMM=1 python3 -m dynamo.vllm $SHARED --all2all-backend deepep_high_throughput --is-prefill-worker
