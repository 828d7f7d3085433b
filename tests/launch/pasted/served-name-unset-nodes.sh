# on h200
PYTHONPATH=. python3 -m sglang.launch_server --model-path=/model/ --served-model-name=deepseek-ai/DeepSeek-R1 --tp-size=16 --nnodes=$NNODES --node-rank=$RANK --dist-init-addr=$HEAD:5000
