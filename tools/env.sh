# shellcheck shell=bash
# What the launchers share. Sourced by them, never run.
#
# MMMLO_PYTHON  interpreter of an environment of your own, which the launchers then use and install into
# MMMLO_VENV    folder of the project's virtual environment, instead of .venv in the project folder

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# Ends the script with one error; further arguments are printed below it.
die() {
    printf 'error: %s\n' "$1" >&2
    shift
    (($# == 0)) || printf '  %s\n' "$@" >&2
    exit 1
}

# Sets `python` to an interpreter that has everything, installing what is missing.
use_environment() {
    if [[ -n ${MMMLO_PYTHON:-} ]]; then
        python=$(command -v "$MMMLO_PYTHON") || die "MMMLO_PYTHON names $MMMLO_PYTHON, which is no program"
        [[ $python == /* ]] || python=$PWD/$python
        PYTHON=$python bash "$root/tools/install.sh" --active
    else
        bash "$root/tools/install.sh"
        python=$(realpath -s "${MMMLO_VENV:-$root/.venv}")/bin/python
    fi
    tune_process
}

# PyTorch's waiting threads sleep, in place of spinning, which slows training beside any busy process. And glibc keeps freed
# memory, where no GPU does the work: clearing the pages of large tensors anew in every step costs up to a third of the time.
# What was set before is left alone; mmmlo/utils/process.py does the same for a tool that is started without a launcher.
tune_process() {
    [[ -n ${OMP_WAIT_POLICY+set} ]] || export GOMP_SPINCOUNT=${GOMP_SPINCOUNT-1000}  # it would overrule a policy that was set
    export OMP_WAIT_POLICY=${OMP_WAIT_POLICY-passive} KMP_BLOCKTIME=${KMP_BLOCKTIME-0}
    if compgen -G '/dev/nvidia[0-9]*' >/dev/null || [[ -e /dev/dxg || -e /dev/kfd ]]; then
        return
    fi
    export MALLOC_MMAP_MAX_=${MALLOC_MMAP_MAX_-0}
    export MALLOC_TRIM_THRESHOLD_=${MALLOC_TRIM_THRESHOLD_-100000000000}
    export MALLOC_TOP_PAD_=${MALLOC_TOP_PAD_-268435456}
}

# The interpreter of the environment that is active.
active_python() {
    command -v "${MMMLO_PYTHON:-python}" ||
        die "no ${MMMLO_PYTHON:-python} here. Activate the environment first: source $root/.venv/bin/activate"
}

# launch GPUS SCRIPT ARGUMENT...: one process a GPU, on every machine that runs this.
launch() {
    local gpus=$1 python
    shift
    [[ $gpus =~ ^[1-9][0-9]*$ ]] || die "the number of GPUs is a whole number from 1, not $gpus"
    python=$(active_python)
    export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}
    tune_process
    exec "$python" -m torch.distributed.run --nnodes "${NNODES:-1}" --node_rank "${NODE_RANK:-0}" \
        --nproc_per_node "$gpus" --master_addr "${MASTER_ADDR:-127.0.0.1}" --master_port "${PORT:-29500}" "$@"
}

# submit PARTITION JOB_NAME SCRIPT ARGUMENT...: one Slurm task a GPU.
submit() {
    local partition=$1 job=$2 gpus=${GPUS:-8} python
    local per_node=${GPUS_PER_NODE:-$((gpus < 8 ? gpus : 8))}
    shift 2
    python=$(active_python)
    export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}
    tune_process
    # SRUN_ARGS is left unquoted: it holds several options.
    # shellcheck disable=SC2086
    exec srun --partition "$partition" --job-name "$job" --gres "gpu:$per_node" --ntasks "$gpus" \
        --ntasks-per-node "$per_node" --cpus-per-task "${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
        "$python" -u "$@" --launcher slurm
}
