# on h200
NODES=2
ROLE=${1:-decode}
TP=$((NODES * 8))
EXTRA="--enable-dp-attention --dp-size $((TP/1))"
[ -n "$DEBUG" ] && set -x
if [ "$NODE_RANK" == "0" ]; then
  HOST_ARGS="--host 0.0.0.0"
fi
ssh node1 "python3 -m sglang.launch_server --model-path /ssd/DeepSeek-R1-0528 --tp $TP --nnodes $NODES --node-rank 1 --dist-init-addr node0:5000 $EXTRA" &
ssh node0 "python3 -m sglang.launch_server --model-path /ssd/DeepSeek-R1-0528 --tp $TP --nnodes $NODES --node-rank 0 --dist-init-addr node0:5000 $EXTRA" &
