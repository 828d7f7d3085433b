# on h200
CMD="python3 -m sglang.launch_server --model-path deepseek-ai/DeepSeek-V3.1 --tp 8"
CMD="$CMD --mem-fraction-static 0.9"
eval $CMD
