# on b200
sglang serve --model-path deepseek-ai/DeepSeek-V3.2 \
  --tp-size 8 --ep-size 8 \
  --nsa-prefill-backend trtllm --nsa-decode-backend trtllm \
  --moe-runner-backend flashinfer_trtllm \
  --tool-call-parser deepseekv32 --reasoning-parser deepseek-v3 \
  --enable-symm-mem --scheduler-recv-interval 10 --stream-interval 10 \
  --max-running-requests 256 --cuda-graph-max-bs 256 --chunked-prefill-size 32768 --disable-radix-cache
