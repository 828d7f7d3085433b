# on b300
sglang serve --model-path nvidia/DeepSeek-V3.2-NVFP4 --tp 4 --dp 4 --enable-dp-attention --ep 4 --quantization modelopt_fp4 --moe-runner-backend flashinfer_cutedsl --moe-a2a-backend deepep --kv-cache-dtype fp8_e4m3 --speculative-algorithm EAGLE --speculative-num-steps 3 --speculative-eagle-topk 1 --speculative-num-draft-tokens 4 --reasoning-parser deepseek-v3 --mem-fraction-static 0.8
