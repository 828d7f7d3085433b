# on h20
# node 0
python3 -m sglang.launch_server --model /models/DeepSeek-V3.1-Terminus --tp 16 --dist-init-addr 10.0.0.1:20000 --nnodes 2 --node-rank 0 --trust-remote-code --speculative-algo NEXTN --speculative-num-steps 3 --speculative-eagle-topk 1 --speculative-num-draft-tokens 4 --enable-torch-compile --torch-compile-max-bs 8

# node 1
python3 -m sglang.launch_server --model /models/DeepSeek-V3.1-Terminus --tp 16 --dist-init-addr 10.0.0.1:20000 --nnodes 2 --node-rank 1 --trust-remote-code --speculative-algo NEXTN --speculative-num-steps 3 --speculative-eagle-topk 1 --speculative-num-draft-tokens 4 --enable-torch-compile --torch-compile-max-bs 8
