# on b300
# prefill node
vllm serve deepseek-ai/DeepSeek-V4-Pro --port 8100 --data-parallel-size 8 --enable-expert-parallel --all2all-backend deepep_high_throughput \
  --max-num-batched-tokens 32768 --gpu-memory-utilization 0.8 --kv-cache-dtype fp8 --block-size 256 --enforce-eager \
  --kv-transfer-config '{"kv_connector":"MooncakeConnector","kv_role":"kv_producer"}'
# decode node
vllm serve deepseek-ai/DeepSeek-V4-Pro --port 8200 --data-parallel-size 8 --enable-expert-parallel --moe-backend=deep_gemm_mega_moe \
  --max-num-seqs 512 --gpu-memory-utilization 0.9 --kv-cache-dtype fp8 --block-size 256 --prefill-schedule-interval 4 \
  --attention-config.indexer_kv_dtype=mxfp4 --speculative-config.method mtp --speculative-config.num_speculative_tokens 2 \
  --kv-transfer-config '{"kv_connector":"MooncakeConnector","kv_role":"kv_consumer"}'
