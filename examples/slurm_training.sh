#!/bin/bash
# Training on several GPUs of several machines under SLURM; data and run lie on a file system that all machines see.
#
#     sbatch examples/slurm_training.sh DATA RUN
#
# Each machine starts one torchrun, and that one process a GPU. The batch of a step is shared out among all processes, so
# --batch-size is a multiple of their number. A job that is stopped, or that SLURM queues again after a failure, goes on
# from its last checkpoint: --resume-if-present begins the run only where there is none. It may go on with other numbers
# of machines and GPUs.
#SBATCH --job-name=convoxel
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --time=04:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue

set -eu
data=$1 run=$2
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)

srun torchrun \
    --nnodes "$SLURM_NNODES" --nproc-per-node 4 --max-restarts 2 \
    --rdzv-backend c10d --rdzv-id "$SLURM_JOB_ID" --rdzv-endpoint "$first:29500" \
    -m convoxel train segment --data "$data" --epochs 200 --batch-size 16 --device cuda \
    --output "$run" --resume-if-present
