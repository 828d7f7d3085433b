# on gb200
COMMON="--model-path /models/deepseek-r1-0528 --trust-remote-code --enable-dp-attention --moe-a2a-backend deepep"
COMMON+=" --disable-radix-cache --enable-dp-lm-head --moe-dense-tp-size 1 --ep-num-redundant-experts 32"
# prefill: no graphs, DeepEP's normal mode
MC_FORCE_MNNVL=1 python3 -m sglang.launch_server $COMMON --disaggregation-mode prefill --dist-init-addr 10.1.1.1:5757 \
  --nnodes 2 --node-rank 0 --tp-size 8 --dp-size 8 --deepep-mode normal --disable-cuda-graph \
  --chunked-prefill-size 32768 --max-running-requests 4096
# decode
SGLANG_DEEPEP_NUM_MAX_DISPATCH_TOKENS_PER_RANK=512 python3 -m sglang.launch_server $COMMON \
  --disaggregation-mode decode --dist-init-addr 10.1.1.3:5757 --nnodes 8 --node-rank 0 --tp-size 32 --dp-size 32 \
  --deepep-mode low_latency --cuda-graph-bs 512 --max-running-requests 16384 --mem-fraction-static 0.82 \
  --prefill-round-robin-balance
python3 -m sglang_router.launch_router --pd-disaggregation --policy=random \
  --prefill http://10.1.1.1:30000 --decode http://10.1.1.3:30000
