#!/usr/bin/env bash
# A training on every host of a TPU slice, each of which has the repository, installed with '.[tpu,gcs]', in the same
# folder:
#     scripts/launch/tpu_pod.sh NAME ZONE FOLDER --config=configs/stage1.py --workdir=gs://… …
# As long as the run asks for it (exit status 75: stopped by a notice, and saved), it is started again.
set -uo pipefail
if [ "$#" -lt 4 ]; then
    echo "usage: $0 NAME ZONE FOLDER --config=… --workdir=gs://… …" >&2
    exit 2
fi
name=$1 zone=$2 folder=$3
shift 3
printf -v flags ' %q' "$@"
while true; do
    gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all \
        --command="cd $(printf %q "$folder") && .venv/bin/python scripts/train.py --distributed=auto$flags"
    status=$?
    if [ "$status" -ne 75 ]; then
        exit "$status"
    fi
done
