#!/usr/bin/env bash
# Installs what is missing, then runs the tests.
#
#   bash tools/run_tests.sh                  all but those marked slow or gpu
#   bash tools/run_tests.sh -m slow          the slow ones
#   bash tools/run_tests.sh tests/test_x.py  any arguments of pytest
#
# They run on all cores, in the project's own environment, or with the interpreter that MMMLO_PYTHON names.

set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"

use_environment
cd "$root"
exec "$python" -m pytest -n auto --dist loadfile --durations=10 "$@"
