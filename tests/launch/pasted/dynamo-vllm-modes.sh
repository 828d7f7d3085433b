# on h200
python3 -m dynamo.vllm --model deepseek-ai/DeepSeek-V3.1 --disaggregation-mode prefill -tp 8 --enable-expert-parallel --connector nixl
python3 -m dynamo.vllm --model deepseek-ai/DeepSeek-V3.1 --disaggregation-mode decode -tp 8 --enable-expert-parallel --kv-transfer-config '{"kv_connector":"NixlConnector","kv_role":"kv_both"}'
