# on h200
export TORCH_CUDA_ARCH_LIST="9.0"; export NVSHMEM_REMOTE_TRANSPORT=ibgda NVSHMEM_IB_ENABLE_IBGDA=true
VLLM_ALL2ALL_BACKEND=pplx VLLM_USE_DEEP_GEMM=1 VLLM_USE_V1=1 \
  vllm serve "deepseek-ai/DeepSeek-V3-0324" --tensor-parallel-size=1 --data-parallel-size=16 --data-parallel-size-local=8 --enable-expert-parallel --data-parallel-backend=ray --max-model-len=4096 --enforce-eager --disable-log-requests --no-enable-chunked-prefill
