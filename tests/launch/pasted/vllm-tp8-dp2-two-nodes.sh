# on h100
# Node 1 (head)
vllm serve deepseek-ai/DeepSeek-V3-0324 --tensor-parallel-size 8 --data-parallel-size 2 --data-parallel-size-local 1 --data-parallel-address 192.168.1.10 --data-parallel-rpc-port 13345 --enable-expert-parallel --max-model-len 8192
# Node 2
vllm serve deepseek-ai/DeepSeek-V3-0324 --tensor-parallel-size 8 --data-parallel-size 2 --data-parallel-size-local 1 --data-parallel-start-rank 1 --data-parallel-address 192.168.1.10 --data-parallel-rpc-port 13345 --enable-expert-parallel --headless --max-model-len 8192
