#!/usr/bin/env bash
# On a machine with one GPU and no network: the GPU tests; every preset layer beside cuDNN in one interleaved run; and,
# where MPI works, a few runs through the executor, on one rank and on two that share the GPU.
#
#   jobs/gpu_check.sh [RESULTS_DIR] [PLOTS_DIR]
#
# Takes the Python it finds (PYTHON=... for another) with CuPy, NumPy, h5py, matplotlib, msgspec, pytest; for the peer
# PyTorch; for the runs all of hpcrnn's own dependencies and an mpirun. Uses this checkout without installing it. Leaves
# in RESULTS_DIR gpu_tests.txt, layers.h5, runs/*.h5 and their verdicts in runs.txt, and in PLOTS_DIR layers.md and two
# figures. Never more than nine minutes: at most 200 s of tests, 240 s of layers, 60 s of runs.
#
# Parts of it, or in small, by what each part is given; "none" leaves it out:
#
#   TESTS=tests/gpu          paths and flags for pytest
#   LAYERS=                  flags for python -m hpcrnn.benchmarks.layers
#   RUNS=jobs/gpu_runs.toml  a sweep
#
#   TESTS=none RUNS=none LAYERS='--only folded' jobs/gpu_check.sh
#   TESTS=none RUNS=none LAYERS='--case gru,float32,B1,H16,T64,fold,4 --ceilings 64' jobs/gpu_check.sh
set -euo pipefail
cd "$(dirname "$0")/.."
results=${1:-results/gpu}
plots=${2:-plots/gpu}
python=${PYTHON:-python3}
read -r -a tests <<< "${TESTS:-tests/gpu}"
read -r -a layers <<< "${LAYERS:-}"
runs=${RUNS:-jobs/gpu_runs.toml}
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
mkdir -p "$results" "$plots"

# Run a command for so many seconds at the most, and for no more than are left of the nine minutes. Interrupted, a sweep
# ends its ranks too.
within() {
    local limit=$1 left=$((520 - SECONDS))
    shift
    timeout -s INT -k 10 "$((left < 1 ? 1 : left < limit ? left : limit))" "$@"
}

"$python" - <<'PYTHON'
import importlib.util
needed = ("cupy", "numpy", "h5py", "matplotlib", "msgspec", "pytest")
missing = [name for name in needed if importlib.util.find_spec(name) is None]
if missing:
    raise SystemExit(f"gpu_check: missing Python packages: {', '.join(missing)}")
import cupy
try:
    cupy.cuda.runtime.getDeviceCount()
except cupy.cuda.runtime.CUDARuntimeError as error:
    raise SystemExit(f"gpu_check: no usable GPU: {error}") from None
print("gpu_check:", cupy.cuda.runtime.getDeviceProperties(0)["name"].decode(), "CuPy", cupy.__version__)
PYTHON

failed=0
if [ "${tests[*]}" != none ]; then
    echo "== the GPU tests ($(date +%T))"
    within 200 "$python" -m pytest "${tests[@]}" -q --tb=short -p no:cacheprovider -r fE > "$results/gpu_tests.txt" 2>&1 || failed=$?
    tail -n 15 "$results/gpu_tests.txt"
    if [ "$failed" -ne 0 ]; then
        echo "gpu_check: the GPU tests failed (status $failed): nothing is timed" >&2
        exit "$failed"
    fi
fi

if [ "${layers[*]:-}" != none ]; then
    peer=()
    "$python" -c 'import torch; raise SystemExit(not torch.cuda.is_available())' 2>/dev/null || peer=(--no-peer)
    echo "== the layers ($(date +%T))"
    rm -f "$results/layers.h5"
    # A case that begins just before 200 s are over has 40 more.
    within 240 "$python" -m hpcrnn.benchmarks.layers --total 200 --out "$results/layers.h5" "${peer[@]}" "${layers[@]}" || failed=$?
    within 20 "$python" -m hpcrnn.reporting.layers "$results/layers.h5" -o "$plots" || failed=$?
fi

# Whether MPI starts two ranks; if not, why, on one line.
mpi_works() {
    within 20 "$python" - <<'PYTHON'
import importlib.util, subprocess, sys
missing = [name for name in ("mpi4py", "threadpoolctl", "jinja2", "rich") if importlib.util.find_spec(name) is None]
if missing:
    raise SystemExit(f"missing Python packages: {', '.join(missing)}")
from hpcrnn.benchmarks.launch import default_launcher
from hpcrnn.errors import HpcrnnError
try:
    launcher = [part.replace("{ranks}", "2") for part in default_launcher()]
except HpcrnnError as error:
    raise SystemExit(str(error)) from None
program = "from mpi4py import MPI; raise SystemExit(MPI.COMM_WORLD.size != 2)"
done = subprocess.run([*launcher, sys.executable, "-c", program], capture_output=True, text=True, stdin=subprocess.DEVNULL)
if done.returncode:
    said = (done.stderr.strip() or "mpi4py sees another number of ranks").splitlines()[-1]
    raise SystemExit(f"{launcher[0]} does not start two ranks: {said}")
PYTHON
}

if [ "$runs" != none ]; then
    echo "== the runs ($(date +%T))"
    if reason=$(mpi_works 2>&1); then
        rm -f "$results"/runs/*.h5 "$results"/runs/*.log  # a sweep does not run again what is done
        within 60 "$python" -m hpcrnn sweep "$runs" -o "$results/runs" || failed=$?
        COLUMNS=200 within 20 "$python" -m hpcrnn show --verbose "$results"/runs/*.h5 > "$results/runs.txt" || failed=$?
        grep -E ' (VALID|APPROXIMATE|INVALID) ' "$results/runs.txt" || true
    else
        echo "gpu_check: no runs, as there is no MPI: ${reason##*$'\n'}"
    fi
fi
echo "== done ($(date +%T))"
exit "$failed"
