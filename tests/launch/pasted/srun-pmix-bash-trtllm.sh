# on b200
srun -N 2 --ntasks-per-node=8 --mpi=pmix --container-image=nvcr.io/nvidia/tensorrt-llm/release:1.2.0 \
  --container-mounts=/lustre:/lustre --export=ALL \
  bash -c "trtllm-llmapi-launch trtllm-serve /lustre/models/DeepSeek-V3.2-NVFP4 --host 0.0.0.0 --port 8000 \
    --backend pytorch --tp_size 16 --ep_size 16 --max_batch_size 256 --max_num_tokens 8192 \
    --kv_cache_free_gpu_memory_fraction 0.8 --trust_remote_code"
