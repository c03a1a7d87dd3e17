#!/usr/bin/env bash
# Installs what is missing, then pretrains and compares MAE, MLO-MAE and CL-MAE on scanned digits. A few minutes on a laptop.
#
#   bash tools/quickstart.sh [options of tools/quickstart.py]
#
# It runs in the project's own environment, or with the interpreter that MMMLO_PYTHON names.

set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"

use_environment
cd "$root"
exec "$python" tools/quickstart.py "$@"
