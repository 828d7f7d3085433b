# on h200
MODEL_PATH="/data/models/DeepSeek-R1-0528"   # local copy
PORT=30000
LOG=/tmp/sgl.log
SGLANG_ENABLE_JIT_DEEPGEMM=1 NCCL_DEBUG=WARN \
python3 -m sglang.launch_server \
  --model-path "$MODEL_PATH" \
  --served-model-name 'deepseek-r1' \
  --tp 8 --dp 8 --enable-dp-attention --enable-dp-lm-head --moe-dense-tp-size 1 \
  --mem-fraction-static 0.88 \
  --chunked-prefill-size 131072 \
  --max-running-requests 1024 \
  --cuda-graph-bs 1 2 4 8 16 32 64 128 \
  --attention-backend fa3 \
  --host 0.0.0.0 --port ${PORT:-30000} \
  --enable-metrics > "$LOG" 2>&1 &
wait
