# on b200
CUDA_VISIBLE_DEVICES=0,1,2,3,4,5,6,7 VLLM_USE_FLASHINFER_MOE_FP4=1 VLLM_SPARSE_INDEXER_MAX_LOGITS_MB=1024 \
nohup vllm serve nvidia/DeepSeek-V3.2-NVFP4 -tp=4 -dp=2 -ep --max-num-batched-tokens=32k \
 --kv-offloading-size 640 --kv-offloading-backend native -O3 --async-scheduling --stream-interval 20 \
 --enable-dbo --dbo-decode-token-threshold 32 --moe-backend=flashinfer-cutlass \
 --enable-eplb --eplb-config.num_redundant_experts=32 --eplb-config.step_interval=3000 \
 --kv-cache-dtype=fp8 > vllm.log 2>&1 &
