# on b200
cat > ctx.yml <<EOF
disable_overlap_scheduler: True
cache_transceiver_config: {backend: UCX}
EOF
cat > gen.yml <<EOF
cache_transceiver_config: {backend: UCX}
EOF
cat > servers.yaml <<EOF
hostname: localhost
port: 8000
context_servers:
  num_instances: 2
  router: {type: load_balancing}
  urls: ["localhost:8101", "localhost:8102"]
generation_servers:
  num_instances: 1
  urls: ["localhost:8103"]
EOF
CUDA_VISIBLE_DEVICES=0,1,2,3 trtllm-serve deepseek-ai/DeepSeek-V3.1 --port 8101 --tp_size 4 --ep_size 4 --extra_llm_api_options ./ctx.yml &> ctx0 &
CUDA_VISIBLE_DEVICES=4,5,6,7 trtllm-serve deepseek-ai/DeepSeek-V3.1 --port 8102 --tp_size 4 --ep_size 4 --extra_llm_api_options ./ctx.yml &> ctx1 &
trtllm-serve deepseek-ai/DeepSeek-V3.1 --port 8103 --tp_size 8 --ep_size 8 --extra_llm_api_options ./gen.yml &> gen0 &
trtllm-serve disaggregated -c servers.yaml
