# on b300
cat > /tmp/config.yml <<'EOF'
cuda_graph_config: {enable_padding: true, max_batch_size: 512}
enable_attention_dp: true
kv_cache_config: {dtype: fp8, free_gpu_memory_fraction: 0.7, tokens_per_block: 128}
moe_config: {backend: MEGAMOE_DEEPGEMM}
max_batch_size: 512
max_num_tokens: 8448
tensor_parallel_size: 8
moe_expert_parallel_size: 8
speculative_config: {decoding_type: MTP, max_draft_len: 1}
EOF
TRTLLM_MLA_SHORT_SEQ_MHA_THRESHOLD=4096 trtllm-llmapi-launch trtllm-serve deepseek-ai/DeepSeek-V4-Pro --config /tmp/config.yml --host 0.0.0.0
