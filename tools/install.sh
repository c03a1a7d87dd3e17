#!/usr/bin/env bash
# Installs mmmlo and everything it needs, in versions that were tested together.
#
#   bash tools/install.sh                 into .venv in the project folder (or $MMMLO_VENV), made if it is not there
#   bash tools/install.sh --venv DIR      into DIR
#   bash tools/install.sh --active        into the environment that is active now
#   bash tools/install.sh --force ...     once more, although nothing has changed since the last time
#
# Run it as often as you like: it does nothing where nothing is missing, and goes on where it was interrupted. A torch
# that is there already is kept. mmcv's operators are built against it, which takes about six minutes on two cores; the
# built wheel is kept for the next environment. With a GPU and nvcc they are built for CUDA as well (not tested yet).
#
# PYTHON       interpreter to use instead of python3 (with --active: instead of python)
# MMMLO_CACHE  where built wheels are kept, instead of ~/.cache/mmmlo
# MAX_JOBS     compilers to run at a time
#
# pip works with your own configuration. Of a fresh Debian 12, the packages python3-venv, python3-dev, g++ and git suffice.

set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"

readonly MIN_PYTHON=3.10
readonly MIN_TORCH=2.6  # 2.5 takes no (function, name) among the safe globals of weights_only
readonly STAMP=.mmmlo-installed  # in the environment, written last

main() {
    parse_arguments "$@"
    find_interpreter
    refuse_conflicts
    end_if_installed
    refuse_machine
    lock

    log=$(mktemp "${TMPDIR:-/tmp}/mmmlo-install.XXXXXX.log")
    printf 'Installing mmmlo into %s\n(what pip and the compiler say goes to %s)\n' "$prefix" "$log"
    rm -f "$prefix/$STAMP"
    step '[1/6] environment'
    make_environment
    step '[2/6] torch'
    install_torch
    step "[3/6] mmcv's operators"
    install_mmcv
    step '[4/6] mmengine, mmpretrain, mmsegmentation, mmdetection, timm, test tools'
    run_pip install -r requirements/mminstall.txt -r requirements/runtime.txt -r requirements/tests.txt -r requirements/docs.txt
    repair_opencv
    step '[5/6] mmmlo'
    run_pip install --no-deps --no-build-isolation --editable .
    step '[6/6] check'
    "$python" -W ignore -m mmmlo.utils.collect_env || exit
    # In an environment of the user's, what does not fit may have nothing to do with this project.
    "$python" -m pip check >>"$log" 2>&1 || note 'pip check reports conflicts:' "$(tail -n 20 "$log")"
    printf '%s\n' "$(probe fingerprint)" >"$prefix/$STAMP"
    rm -f "$log"
    printf '\nInstalled in %d minutes.' $((SECONDS / 60))
    [[ -n $active ]] || printf ' To work in this environment: source %q' "$prefix/bin/activate"
    printf '\n'
}

parse_arguments() {
    local venv=''
    active='' force=''
    while (($#)); do
        case $1 in
        --venv)
            [[ -n ${2:-} ]] || die '--venv needs a folder, as in: bash tools/install.sh --venv ~/envs/mmmlo'
            venv=$2
            shift
            ;;
        --active) active=yes ;;
        --force) force=yes ;;
        -h | --help)
            sed -n '2,/^$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
            exit
            ;;
        *) die "unknown option $1. There are --venv DIR, --active, --force and --help" ;;
        esac
        shift
    done
    [[ -z $active || -z $venv ]] || die '--venv and --active exclude each other: name a folder, or activate it first'
    prefix=$(realpath -ms "${venv:-${MMMLO_VENV:-$root/.venv}}")
    # Everything below runs in the project folder, wherever it was called from.
    interpreter=${PYTHON:-}
    [[ $interpreter != */* ]] || interpreter=$(realpath -ms "$interpreter")
    cd "$root"
}

# Sets `python`, the interpreter that is asked and later installed into, and `prefix`, its environment's folder.
find_interpreter() {
    if [[ -n $active ]]; then
        python=$(command -v "${interpreter:-python}" || command -v "${interpreter:-python3}") ||
            die "no ${interpreter:-python} here. Activate an environment first, or leave out --active"
    elif [[ -x $prefix/bin/python ]]; then
        python=$prefix/bin/python
    elif [[ -e $prefix && -n $(ls -A "$prefix") && ! -e $prefix/pyvenv.cfg ]]; then
        die "$prefix exists and is not a virtual environment. Name another folder with --venv DIR"
    else
        python=$(command -v "${interpreter:-python3}") ||
            die "no ${interpreter:-python3} here. Install Python $MIN_PYTHON or newer, or name one: PYTHON=/path/to/python bash tools/install.sh"
    fi

    local version
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) ||
        die "$python does not run. If its environment is broken, remove that folder and run this again"
    at_least "$version" "$MIN_PYTHON" ||
        die "$python is Python $version, and $MIN_PYTHON or newer is needed. Name a newer one: PYTHON=/path/to/python bash tools/install.sh"
    [[ -z $active ]] || prefix=$("$python" -c 'import sys; print(sys.prefix)')
}

refuse_conflicts() {
    local conflict=''
    [[ -z $active && ! -x $prefix/bin/python ]] || conflict=$(probe conflict)
    [[ -z $conflict ]] ||
        die "$prefix holds OpenMMLab packages from elsewhere. mmmlo installs their maintained fork (onedl-*), whose files have the same names, so they would overwrite each other. Uninstall all of them and run this again: $python -m pip uninstall -y $conflict"
}

# What the machine lacks, said before anything is downloaded.
refuse_machine() {
    # shellcheck disable=SC2086  # CXX may have options
    command -v ${CXX:-g++} >/dev/null || command -v c++ >/dev/null ||
        die 'no C++ compiler (g++ or c++), and mmcv has to be compiled. On Debian or Ubuntu: apt-get install g++'
    [[ -n $(probe headers) ]] ||
        die "$python has no headers (Python.h), and mmcv has to be compiled. On Debian or Ubuntu: apt-get install python3-dev"
    [[ -x $prefix/bin/python ]] || "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        die "$python cannot make virtual environments with pip. On Debian or Ubuntu: apt-get install python3-venv"
}

# One installation at a time: two would build the same wheel twice, or write into the same environment.
lock() {
    cache=${MMMLO_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/mmmlo}
    mkdir -p "$cache/mmcv"
    exec 9>"$cache/lock"
    if ! flock --nonblock 9; then
        printf 'Waiting for another installation to finish (it holds %s) ...\n' "$cache/lock"
        flock 9
        end_if_installed
    fi
    rm -rf "$cache"/mmcv/.build.*  # left by an interrupted one
}

make_environment() {
    # Not there, or interrupted while it was made.
    if [[ -z $active ]] && ! "$prefix/bin/python" -m pip --version >>"$log" 2>&1; then
        run "$python" -m venv "$prefix"
        python=$prefix/bin/python
    fi
    run_pip install -r requirements/build.txt
}

install_torch() {
    local version message
    version=$(probe torch)
    if [[ -z $version ]]; then
        run_pip install -r requirements/torch.txt
        version=$(probe torch)
    else
        at_least "$version" "$MIN_TORCH" ||
            die "torch $version is too old: $MIN_TORCH or newer is needed. Upgrade it, or uninstall it and run this again"
        note "keeping torch $version, which is there already"
        [[ -n $(probe torchvision) ]] || run_pip install torchvision "torch==$version"
    fi
    message=$("$python" -c 'import torch' 2>&1) ||
        die "torch $version is installed in $prefix, but cannot be imported. Repair it, or uninstall it ($python -m pip uninstall -y torch) and run this again. It says: $(tail -n 1 <<<"$message")"
}

install_mmcv() {
    local requirement folder wheel target work cuda
    local -a build_env=("CFLAGS=${CFLAGS:-} -g0" "MAX_JOBS=${MAX_JOBS:-$(jobs_that_fit)}")
    requirement=$(grep '^onedl-mmcv==' requirements/mminstall.txt)

    # A CUDA build of torch does not mean that there is a GPU to build for.
    target=cpu
    cuda=$("$python" -c 'import torch; print(torch.version.cuda or "" if torch.cuda.is_available() else "")')
    if [[ -n $cuda ]]; then
        if [[ -x ${CUDA_HOME:-/nowhere}/bin/nvcc ]] || command -v nvcc >/dev/null; then
            target=cuda$cuda-$("$python" -c 'import os, torch; print(os.environ.get("TORCH_CUDA_ARCH_LIST") or "%d.%d" % torch.cuda.get_device_capability())')
            build_env+=(FORCE_CUDA=1)
        else
            note "no nvcc here: mmcv's operators are built for the CPU only. That is enough for pretraining, mmpretrain and mmsegmentation; for mmdetection on the GPU, install the CUDA $cuda toolkit, then run this again with --force"
            build_env+=(CUDA_VISIBLE_DEVICES=)
        fi
    fi

    folder=$cache/mmcv/$(probe platform)-torch$(probe torch)-mmcv${requirement##*==}-${target//[^[:alnum:].-]/_}
    wheel=$(compgen -G "$folder/*.whl" || true)
    if [[ -n $wheel ]] && "$python" tools/wheel_check.py "$wheel" >>"$log" 2>&1; then
        note "using the wheel that was built before: $wheel"
    else
        note "compiling them, about six minutes on two cores; to look on: tail -f $log"
        work=$(mktemp -d "$cache/mmcv/.build.XXXXXX")
        mkdir "$work/tmp" "$work/wheel"
        # Everything temporary lies in $work, which the next installation removes if this one is killed.
        # Without --no-build-isolation the build sees no torch, and leaves the operators out without a word. pip's own
        # cache could hold such a wheel, or one for another torch. -g0: debug symbols make the wheel twenty times larger.
        run env "${build_env[@]}" TMPDIR="$work/tmp" "$python" -m pip wheel -v --no-build-isolation --no-deps --no-binary onedl-mmcv \
            --no-cache-dir --wheel-dir "$work/wheel" "$requirement"
        run "$python" tools/wheel_check.py "$work"/wheel/*.whl
        # Moved only now, and in one step, so that whatever lies in the folder is whole.
        rm -rf "$folder"
        mv -T "$work/wheel" "$folder"
        rm -rf "$work"
    fi
    run_pip install --no-deps --force-reinstall "$folder"/*.whl
}

# The frameworks ask for opencv-python and opencv-python-headless. Both write the same files, and the first one needs
# libraries of a desktop. Where those are absent, the headless files go on top.
repair_opencv() {
    "$python" -c 'import cv2' >>"$log" 2>&1 ||
        run_pip install --no-deps --force-reinstall "$(grep '^opencv-python-headless==' requirements/mminstall.txt)"
}

# --- helpers ---------------------------------------------------------------------------------------------------------

probe() { "$python" tools/install_probe.py "$1"; }

end_if_installed() {
    if [[ -z $force && -f $prefix/$STAMP && -x $python && $(<"$prefix/$STAMP") == "$(probe fingerprint)" ]]; then
        printf 'Already installed in %s\n' "$prefix"
        exit
    fi
}

# Whether version $1 is version $2 or newer.
at_least() { [[ $(printf '%s\n' "$2" "$1" | sort -V | head -n 1) == "$2" ]]; }

step() { printf '%s (after %d min %02d s)\n' "$1" $((SECONDS / 60)) $((SECONDS % 60)); }

note() { printf '      %s\n' "$@"; }

# Compiling one of mmcv's files takes up to 2 GB of memory.
jobs_that_fit() {
    awk -v cores="$(nproc)" '/^MemAvailable:/ { fit = int($2 / 2097152) }
        END { print (fit < 1 ? 1 : fit < cores ? fit : cores) }' /proc/meminfo
}

run_pip() { run "$python" -m pip --disable-pip-version-check --no-input "$@"; }

# Runs a command with its output in the log.
run() {
    if ! "$@" >>"$log" 2>&1 9>&- </dev/null; then
        printf '\nThe last lines of %s:\n' "$log" >&2
        tail -n 30 "$log" >&2
        printf '\n' >&2
        die "this failed: $*" "the whole output is in $log. Run tools/install.sh again once the cause is removed: it goes on from here"
    fi
}

main "$@"
exit  # so that bash reads no further, should this file be changed while it runs
