# on gb200
vllm serve nvidia/DeepSeek-R1-NVFP4 --data-parallel-size 4 --enable-expert-parallel --all2all-backend flashinfer_nvlink_two_sided --kv-cache-dtype fp8 --max-num-seqs 1024 --max-cudagraph-capture-size 2048 --stream-interval 20 --attention-config '{"use_trtllm_ragged_deepseek_prefill": true}' --numa-bind --safetensors-load-strategy prefetch
