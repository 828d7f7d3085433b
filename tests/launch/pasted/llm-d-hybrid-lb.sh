# on h200
vllm serve deepseek-ai/DeepSeek-R1-0528 \
  --port 8100 \
  --enable-expert-parallel \
  --data-parallel-hybrid-lb \
  --tensor-parallel-size 1 \
  --data-parallel-size 16 --data-parallel-size-local 8 \
  --data-parallel-address ${LWS_LEADER_ADDRESS} --data-parallel-rpc-port 5555 \
  --data-parallel-start-rank $START_RANK \
  --kv_transfer_config '{"kv_connector":"NixlConnector","kv_role":"kv_both","kv_load_failure_policy":"fail"}' \
  --async-scheduling --enable-dbo --dbo-prefill-token-threshold 32 --enable-eplb \
  --gpu-memory-utilization 0.75
