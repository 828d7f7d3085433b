# on h200
COMMON_ARGS="--tensor-parallel-size 8 --enable-expert-parallel --max-model-len 32768"
vllm serve deepseek-ai/DeepSeek-V3.1 $COMMON_ARGS --max-num-seqs 256
