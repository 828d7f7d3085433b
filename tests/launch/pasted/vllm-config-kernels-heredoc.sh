# on b200
cat <<'EOF' > /etc/vllm/config.yaml
model: deepseek-ai/DeepSeek-R1-0528
tensor-parallel-size: 8
max-num-seqs: 256
max_num_batched_tokens: 16384
enable-expert-parallel: true
enable_prefix_caching: false
speculative-config:
  method: deepseek_mtp
  num_speculative_tokens: 1
kernel-config: {moe_backend: flashinfer-trtllm}
compilation-config: {cudagraph_mode: FULL_AND_PIECEWISE}
EOF
vllm serve --config /etc/vllm/config.yaml --kv-cache-dtype fp8 --max-num-seqs 512
