# on gb300
srun --overlap --nodes=1 --ntasks=1 -w node7 --container-image=$IMG env SGLANG_ENABLE_JIT_DEEPGEMM=false PYTHONUNBUFFERED=1 \
  python3 -m sglang.launch_server --model-path /model/DeepSeek-R1-0528-NVFP4-v2 --trust-remote-code --quantization modelopt_fp4 --fp4-gemm-backend flashinfer_cutlass --kv-cache-dtype fp8_e4m3 --attention-backend trtllm_mla --tensor-parallel-size 4 --data-parallel-size 1 --expert-parallel-size 1 --moe-runner-backend flashinfer_trtllm --context-length 2200 --stream-interval 30 --max-running-requests 128 --cuda-graph-max-bs 128
