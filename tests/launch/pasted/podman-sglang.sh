# on h200
podman run -d --device nvidia.com/gpu=all --shm-size 32g -p 30000:30000 lmsysorg/sglang:v0.5.9-cu129 python3 -m sglang.launch_server --model-path deepseek-ai/DeepSeek-V3.2 --tp 8 --host 0.0.0.0 --port 30000
