#!/usr/bin/env bash
# Trains as a Slurm job. Activate the environment first.
#
#   [GPUS=8] [GPUS_PER_NODE=8] [CPUS_PER_TASK=5] [SRUN_ARGS='...'] \
#       bash tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [options of tools/train.py]

set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"

(($# >= 4)) || die 'usage: bash tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [options of tools/train.py]'
submit "$1" "$2" "$root/tools/train.py" "$3" --work-dir "$4" "${@:5}"
