# on h200
cat <<EOF > /tmp/extra-llm-api-config.yml
enable_attention_dp: true
moe_config:
  backend: DEEPGEMM
  max_num_tokens: 32768
kv_cache_config:
  dtype: fp8
  free_gpu_memory_fraction: 0.7
  enable_block_reuse: true
cuda_graph_config:
  enable_padding: true
  max_batch_size: 512
attention_dp_config:
  batching_wait_iters: 10
  enable_balance: true
  timeout_iters: 500
speculative_config:
  decoding_type: MTP
  num_nextn_predict_layers: 3
  use_relaxed_acceptance_for_thinking: true
  relaxed_topk: 10
  relaxed_delta: 0.6
EOF
mpirun -n 1 --oversubscribe --allow-run-as-root trtllm-serve serve deepseek-ai/DeepSeek-R1-0528 --tp_size 8 --ep_size 8 --pp_size 1 \
  --max_batch_size 512 --max_num_tokens 8192 --max_seq_len 9472 --num_postprocess_workers 2 --trust_remote_code --extra_llm_api_options /tmp/extra-llm-api-config.yml
