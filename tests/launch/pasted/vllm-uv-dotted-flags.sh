# on h200
uv run --with vllm vllm serve deepseek-ai/DeepSeek-V3.2 -tp 8 --tokenizer-mode deepseek_v32 --tool-call-parser deepseek_v32 --enable-auto-tool-choice --reasoning-parser deepseek_v3 --speculative-config.method mtp --speculative-config.num_speculative_tokens 1 --max-num-seqs 1k --max-num-batched-tokens 16K
