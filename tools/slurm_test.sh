#!/usr/bin/env bash
# Tests a checkpoint as a Slurm job. Activate the environment first.
#
#   [GPUS=8] [GPUS_PER_NODE=8] [CPUS_PER_TASK=5] [SRUN_ARGS='...'] \
#       bash tools/slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [options of tools/test.py]

set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"

(($# >= 4)) || die 'usage: bash tools/slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [options of tools/test.py]'
submit "$1" "$2" "$root/tools/test.py" "$3" "$4" "${@:5}"
