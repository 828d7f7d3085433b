# on h200
python3 -m dynamo.frontend --http-port=8000 --router-mode kv &
# prefill worker
CUDA_VISIBLE_DEVICES=0,1,2,3,4,5,6,7 python3 -m dynamo.sglang \
  --model-path /model/deepseek-r1 --served-model-name deepseek-ai/DeepSeek-R1 \
  --skip-tokenizer-init --disaggregation-mode prefill --disaggregation-transfer-backend nixl \
  --disaggregation-bootstrap-port 30001 --tp-size 8 --dp-size 8 --enable-dp-attention \
  --moe-a2a-backend deepep --deepep-mode normal --mem-fraction-static 0.85 --page-size 1 --trust-remote-code \
  --kv-events-config '{"publisher":"zmq","topic":"kv-events","endpoint":"tcp://*:5557"}' --dyn-tool-call-parser deepseek_v3_1 &
# decode worker
python3 -m dynamo.sglang \
  --model-path /model/deepseek-r1 --served-model-name deepseek-ai/DeepSeek-R1 \
  --skip-tokenizer-init --disaggregation-mode decode --disaggregation-transfer-backend nixl \
  --disaggregation-bootstrap-port 30001 --tp-size 8 --dp-size 8 --enable-dp-attention \
  --moe-a2a-backend deepep --deepep-mode low_latency --mem-fraction-static 0.82 --cuda-graph-max-bs 128 \
  --page-size 1 --trust-remote-code --prefill-round-robin-balance
