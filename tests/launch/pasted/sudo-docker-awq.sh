# on h200
docker compose up -d   # 见 docker-compose.yml
sudo docker run -d --runtime nvidia --gpus '"device=0,1,2,3,4,5,6,7"' --name r1 -v /data:/data --shm-size=64g \
 --env=VLLM_USE_V1=1 docker.io/vllm/vllm-openai:v0.8.5 --model /data/DeepSeek-R1-AWQ --tensor-parallel-size 8 --quantization awq_marlin --dtype float16 --max-model-len 65536 --enable-reasoning --reasoning-parser deepseek_r1 --max-seq-len-to-capture 65536
