# on h200
ARGS=(
  --model-path deepseek-ai/DeepSeek-V3.1
  --tp 8            # tensor parallel
  --dp 8
  --enable-dp-attention
)
python3 -m sglang.launch_server "${ARGS[@]}"
