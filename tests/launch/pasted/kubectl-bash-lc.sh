# on h200
kubectl exec -it pod -- bash -lc 'VLLM_ATTENTION_BACKEND=FLASHMLA VLLM_USE_DEEP_GEMM=1 vllm serve deepseek-ai/DeepSeek-R1-0528 --tensor-parallel-size=8 --enable-expert-parallel --max-num-batched-tokens=16384 --max-num-seqs=256 -O.cudagraph_mode=FULL_AND_PIECEWISE --disable-log-requests'
