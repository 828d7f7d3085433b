# on h200
python -m sglang.launch_server --model deepseek-ai/DeepSeek-V3.2-Exp --tp 8 --dp 8 --enable-dp-attention --speculative-algorithm EAGLE --speculative-num-steps 3 --speculative-eagle-topk 1 --speculative-num-draft-tokens 4 --nsa-prefill flashmla_sparse --nsa-decode fa3 --kv-cache-dtype bf16 --enable-nsa-prefill-context-parallel
