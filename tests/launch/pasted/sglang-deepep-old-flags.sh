# on h200
python -m sglang.launch_server --model-path deepseek-ai/DeepSeek-V3 --tp 8 --dp-size 8 --enable-dp-attention --enable-deepep-moe --deepep-mode auto --enable-two-batch-overlap --enable-eplb --init-expert-location trivial --max-running-requests 2048 --cuda-graph-max-bs=256 --chunked_prefill_size 65536 --torch-compile-max-bs 32
