# on gb300
# Terminal 1
python3 -m dynamo.frontend --router-mode kv --http-port 8000 &
# Terminal 2: prefill
SGLANG_OPT_USE_DEEPGEMM_MEGA_MOE=1 python3 -m dynamo.sglang --model-path deepseek-ai/DeepSeek-V4-Pro \
  --served-model-name deepseek-ai/DeepSeek-V4-Pro --tp-size 4 --dp-size 4 --enable-dp-attention \
  --disaggregation-mode prefill --disaggregation-transfer-backend nixl --moe-a2a-backend megamoe \
  --chunked-prefill-size 32768 --mem-fraction-static 0.9 --disable-radix-cache --host 0.0.0.0 &
# Terminal 3: decode, two trays
for r in 0 1; do
python3 -m dynamo.sglang --model-path deepseek-ai/DeepSeek-V4-Pro \
  --served-model-name deepseek-ai/DeepSeek-V4-Pro --tp-size 8 --dp-size 8 --enable-dp-attention \
  --nnodes 2 --node-rank $r --dist-init-addr head:5000 \
  --disaggregation-mode decode --disaggregation-transfer-backend nixl --moe-a2a-backend megamoe \
  --max-running-requests 4096 --cuda-graph-max-bs 512 --mem-fraction-static 0.94 --host 0.0.0.0
done
