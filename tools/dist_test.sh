#!/usr/bin/env bash
# Tests a checkpoint on several GPUs of this machine, or of several machines. Activate the environment first.
#
#   bash tools/dist_test.sh CONFIG CHECKPOINT GPUS [options of tools/test.py]
#
# For several machines, see dist_train.sh.

set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"

(($# >= 3)) || die 'usage: bash tools/dist_test.sh CONFIG CHECKPOINT GPUS [options of tools/test.py]'
launch "$3" "$root/tools/test.py" "$1" "$2" --launcher pytorch "${@:4}"
