# on h200
python3 -m vllm.entrypoints.openai.api_server --model deepseek-ai/DeepSeek-V3 --tensor_parallel_size 8 --trust_remote_code --max_model_len 16384 --max_num_seqs 64 --gpu_memory_utilization 0.95 --quantization fp8 --enable-chunked-prefill=False --swap-space 16 --disable-log-stats
