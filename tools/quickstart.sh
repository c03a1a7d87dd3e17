#!/usr/bin/env bash
# Installs what is missing, then pretrains and compares MAE with and without weights that find the digits. Minutes on a laptop.
#
#   bash tools/quickstart.sh [options of tools/quickstart.py]
#
# It runs in the project's own environment, or with the interpreter that MMMLO_PYTHON names.

set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"

use_environment
cd "$root"
exec "$python" tools/quickstart.py "$@"
