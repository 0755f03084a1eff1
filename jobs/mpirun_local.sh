#!/usr/bin/env bash
# On one machine without a scheduler: a sweep under mpirun, with as many ranks as there are cores, and its report.
#
#   jobs/mpirun_local.sh [SPEC] [MOST_RANKS]
set -euo pipefail
spec=${1:-jobs/strong.toml}
most=${2:-$(nproc)}
name=$(basename "$spec" .toml)
ranks=1
for ((n = 2; n <= most; n *= 2)); do ranks+=,$n; done
hpcrnn doctor
hpcrnn sweep "$spec" --ranks "$ranks" -o "results/$name" --report "plots/$name"
