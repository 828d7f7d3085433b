# on b200
set -x
if [[ "$CONC" -gt 64 ]]; then ADP=true; else ADP=false; fi
TP=8
OPTIONS=${WORKDIR}/r1.yml
cat > $OPTIONS <<EOF
cuda_graph_config:
    enable_padding: true
    max_batch_size: 64
kv_cache_config:
    dtype: fp8
    free_gpu_memory_fraction: 0.8
    enable_block_reuse: false
moe_config:
    backend: TRTLLM
EOF
mpirun -n 1 --oversubscribe --allow-run-as-root \
    trtllm-serve deepseek-ai/DeepSeek-R1-0528 --port=8888 --trust_remote_code --backend=pytorch \
    --max_seq_len=$MAX_MODEL_LEN --max_num_tokens=4096 --tp_size=$TP --ep_size=$TP \
    --extra_llm_api_options=$OPTIONS > server.log 2>&1 &
while ! curl --silent --fail http://0.0.0.0:8888/health; do sleep 5; done
