# on gb200
cat > prompts.yaml <<'YAML'
tensor_parallel_size: 4
moe_expert_parallel_size: 4
enable_attention_dp: true
max_batch_size: 8
max_num_tokens: 8448
cuda_graph_config: null
disable_overlap_scheduler: true
kv_cache_config: {dtype: fp8, enable_block_reuse: false, free_gpu_memory_fraction: 0.8}
cache_transceiver_config: {backend: DEFAULT}
YAML
cat > answers.yaml <<'YAML'
tensor_parallel_size: 16
moe_expert_parallel_size: 16
enable_attention_dp: true
max_batch_size: 64
max_num_tokens: 64
cuda_graph_config: {enable_padding: true, batch_sizes: [1, 8, 64]}
kv_cache_config: {dtype: fp8, enable_block_reuse: false, free_gpu_memory_fraction: 0.7}
moe_config: {backend: WIDEEP}
cache_transceiver_config: {backend: DEFAULT}
YAML
python3 -m dynamo.trtllm --model-path /cache/deepseek-r1-fp4 --served-model-name r1 --extra-engine-args prompts.yaml \
  --disaggregation-mode prefill --override-engine-args '{"max_num_tokens": 4224}' &
trtllm-llmapi-launch python3 -m dynamo.trtllm --model-path /cache/deepseek-r1-fp4 --served-model-name r1 \
  --extra-engine-args answers.yaml --disaggregation-mode decode --publish-events-and-metrics
