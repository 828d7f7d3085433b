# on h200
#SBATCH --nodes=2
srun --nodes=1 --ntasks=1 -w "$head" python3 -m sglang.launch_server --model-path deepseek-ai/DeepSeek-R1 --tp 16 --dist-init-addr "$head_ip:5000" --nnodes "$SLURM_NNODES" --node-rank 0 &
srun --nodes=1 --ntasks=1 -w "$worker" python3 -m sglang.launch_server --model-path deepseek-ai/DeepSeek-R1 --tp 16 --dist-init-addr "$head_ip:5000" --nnodes "$SLURM_NNODES" --node-rank 1 &
