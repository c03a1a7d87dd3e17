#!/usr/bin/env bash
# Trains on several GPUs of this machine, or of several machines. Activate the environment first.
#
#   bash tools/dist_train.sh CONFIG GPUS [options of tools/train.py]
#
# For several machines, run it on each with NNODES (how many), NODE_RANK (which one, from 0), MASTER_ADDR (the address of
# number 0) and, if 29500 is taken there, PORT.

set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"

(($# >= 2)) || die 'usage: bash tools/dist_train.sh CONFIG GPUS [options of tools/train.py]'
launch "$2" "$root/tools/train.py" "$1" --launcher pytorch "${@:3}"
