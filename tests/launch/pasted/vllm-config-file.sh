# on h200
cat > config.yaml <<EOF
model: deepseek-ai/DeepSeek-V3.2-Exp
tensor-parallel-size: 8
enable-expert-parallel: true
max-model-len: 65536
gpu-memory-utilization: 0.92
kv-cache-dtype: fp8
speculative-config:
  method: deepseek_mtp
  num_speculative_tokens: 2
no-enable-prefix-caching: true
EOF
vllm serve --config config.yaml
