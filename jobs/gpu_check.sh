#!/usr/bin/env bash
# On a machine with one GPU and no network: the GPU tests, then every preset layer beside cuDNN in one interleaved run.
#
#   jobs/gpu_check.sh [RESULTS_DIR] [PLOTS_DIR]
#
# Takes the Python it finds (PYTHON=... for another) with CuPy, NumPy, h5py, matplotlib, msgspec, pytest and, for the
# peer, PyTorch; uses this checkout without installing it. Leaves RESULTS_DIR/layers.h5, RESULTS_DIR/gpu_tests.txt,
# PLOTS_DIR/layers.md and two figures. About five minutes; never more than nine.
set -euo pipefail
cd "$(dirname "$0")/.."
results=${1:-results/gpu}
plots=${2:-plots/gpu}
python=${PYTHON:-python3}
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
mkdir -p "$results" "$plots"

"$python" - <<'PYTHON'
import importlib.util
needed = ("cupy", "numpy", "h5py", "matplotlib", "msgspec", "pytest")
missing = [name for name in needed if importlib.util.find_spec(name) is None]
if missing:
    raise SystemExit(f"gpu_check: missing Python packages: {', '.join(missing)}")
import cupy
cupy.cuda.runtime.getDeviceCount()
print("gpu_check:", cupy.cuda.runtime.getDeviceProperties(0)["name"].decode(), "CuPy", cupy.__version__)
PYTHON

echo "== the GPU tests ($(date +%T))"
status=0
timeout 200 "$python" -m pytest tests/gpu -q --tb=short -p no:cacheprovider -r fE > "$results/gpu_tests.txt" 2>&1 || status=$?
tail -n 15 "$results/gpu_tests.txt"
if [ "$status" -ne 0 ]; then
    echo "gpu_check: the GPU tests failed (status $status): nothing is timed" >&2
    exit "$status"
fi

peer=()
"$python" -c 'import torch' 2>/dev/null || peer=(--no-peer)
echo "== the layers ($(date +%T))"
timeout 300 "$python" -m hpcrnn.benchmarks.layers --out "$results/layers.h5" "${peer[@]}"
if [ "${#peer[@]}" -eq 0 ]; then
    timeout 30 "$python" -m hpcrnn.reporting.layers "$results/layers.h5" -o "$plots"
fi
echo "== done ($(date +%T))"
