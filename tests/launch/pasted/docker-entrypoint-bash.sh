# on b200
docker run --rm -it --gpus all --ipc=host --network host \
  -e VLLM_USE_FLASHINFER_MOE_FP4=1 -e VLLM_USE_FLASHINFER_MOE_FP8=1 --env VLLM_ATTENTION_BACKEND=FLASHINFER_MLA \
  -v ~/.cache/huggingface:/root/.cache/huggingface \
  --entrypoint /bin/bash \
  vllm/vllm-openai:v0.12.0 -c "vllm serve nvidia/DeepSeek-R1-0528-FP4-v2 --tensor-parallel-size 4 --kv-cache-dtype fp8 --max-num-seqs 128 --no-enable-prefix-caching"
