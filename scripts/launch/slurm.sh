#!/usr/bin/env bash
# A training on SLURM, one process a node:
#     sbatch --nodes=4 --gpus-per-node=8 --cpus-per-task=16 scripts/launch/slurm.sh --config=configs/stage1.py --workdir=… …
# On preemption, and two minutes before the time limit, every process gets SIGTERM, saves, and exits with 75; the job
# is then queued again and goes on from there.
#SBATCH --job-name=toontalker
#SBATCH --ntasks-per-node=1
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -uo pipefail
cd "${SLURM_SUBMIT_DIR:?submit this with sbatch, from the repository}"
if [ -n "${SLURM_GPUS_ON_NODE:-}" ]; then # JAX would give a process one GPU alone, that of its number on the node.
    JAX_LOCAL_DEVICE_IDS=$(seq -s, 0 $((SLURM_GPUS_ON_NODE - 1)))
    export JAX_LOCAL_DEVICE_IDS
fi
if [ -n "${SLURM_CPUS_PER_TASK:-}" ]; then # srun does not take it from sbatch by itself.
    export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"
fi
srun --kill-on-bad-exit=0 .venv/bin/python scripts/train.py --distributed=auto "$@"
status=$?
if [ "$status" -eq 75 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
