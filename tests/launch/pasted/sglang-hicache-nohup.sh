# on h200
nohup python3 -u -m sglang.launch_server --model-path deepseek-ai/DeepSeek-R1 --tp 8 --trust-remote-code --enable-hierarchical-cache --hicache-ratio 2 --hicache-write-policy write_through --hicache-storage-backend mooncake --page-size 64 --mem-fraction-static 0.9 >sglang.log 2>&1 &
