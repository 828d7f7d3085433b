# on b200
docker run --gpus all -p 8000:8000 --ipc=host -e HF_TOKEN=$HF_TOKEN -e VLLM_USE_DEEP_GEMM=0 \
   vllm/vllm-openai:latest --model deepseek-ai/DeepSeek-V3.2 --tensor-parallel-size 8 \
   --tokenizer-mode deepseek_v32 --tool-call-parser deepseek_v32 --enable-auto-tool-choice --reasoning-parser deepseek_v3
