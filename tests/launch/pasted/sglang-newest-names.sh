# on h200
export MODEL="deepseek-ai/DeepSeek-V3.2"
python3 -m sglang.launch_server --model-path "$MODEL" --tp-size 8 --attn-dp-size 8 --moe-a2a-backend=deepep_v2 \
  --cuda-graph-config '{"decode":{"backend":"full","max_bs":128},"prefill":{"backend":"disabled"}}' \
  --chunked-prefill-size 32768 --max-running-requests 1000 --kv-cache-dtype fp8_e4m3 --page-size 64 \
  --schedule-conservativeness 0.3 --json-model-override-args "{\"index_topk_pattern\": \"FFSFSSSFSSFFFSSSFFFSFSSSSSSFFSFFSFFSSFFFFFFSFFFFFSFFSSSSSSFSF\"}"
