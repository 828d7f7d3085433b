# on h200
bash run_cluster.sh vllm/vllm-openai 10.0.0.1 --head /root/hf -e VLLM_HOST_IP=10.0.0.1
docker exec -it node bash
vllm serve /root/hf/DeepSeek-R1 --tensor-parallel-size 8 --pipeline-parallel-size 2 --max-model-len 32k --gpu-memory-utilization 0.95 --enable-chunked-prefill --trust-remote-code --distributed-executor-backend ray
