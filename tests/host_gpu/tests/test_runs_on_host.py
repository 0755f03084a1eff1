"""``hpcrnn run --backend cupy`` as a user starts it, on the stand-in."""

import sys

import pytest
from launching import SMALL, TIMEOUT_S, case_script, hpcrnn, hpcrnn_run, mpirun, start
from stand_in import cp  # the module is left out where there is another CuPy

from hpcrnn.backends.cupy.device import uuid_of_gpu
from hpcrnn.benchmarks.launch import default_launcher
from hpcrnn.records.hdf5 import read_record

pytestmark = pytest.mark.mpi

FLAGS = (*SMALL, "--backend", "cupy", "--hidden", 16)


@pytest.fixture
def two_devices(monkeypatch):
    monkeypatch.setenv("HPCRNN_HOST_GPU_COUNT", "2")


def assert_valid(ended, folder, cases):
    assert ended.code == 0, ended.err
    record = read_record(folder / "r.h5")
    assert len(record.cases) == cases
    for case in record.cases:
        assert case.verdict.status == "VALID"
        assert case.backend == "cupy"
    return record


@pytest.mark.parametrize("kernel", ["persistent", "stepwise"])
@pytest.mark.parametrize("cell", ["elman", "lstm", "gru"])
def test_a_serial_run_is_valid(cell, kernel, tmp_path):
    ended = hpcrnn("run", *FLAGS, "--cell", cell, "--kernel", kernel, "--chunks", 2, cwd=tmp_path)
    (case,) = assert_valid(ended, tmp_path, 1).cases
    assert case.kernel == f"cupy float32 {kernel}"
    assert kernel in case.kernel_details[0]


@pytest.mark.parametrize("mode", ["gradient", "forward"])
@pytest.mark.parametrize("workload", ["adding", "synthetic"])
def test_every_mode_is_valid_on_features(mode, workload, tmp_path):
    ended = hpcrnn("run", *FLAGS, "--mode", mode, "--workload", workload, "--microbatches", 2, cwd=tmp_path)
    assert_valid(ended, tmp_path, 1)


@pytest.mark.parametrize("late", [0, 1])
@pytest.mark.parametrize("data_method", ["allreduce_bucketed", "allreduce_flat"])
def test_two_ranks_share_the_batch(data_method, late, tmp_path, two_devices, monkeypatch):
    monkeypatch.setenv("HPCRNN_HOST_GPU_LATE", str(late))
    ended = hpcrnn_run(2, *FLAGS, "--batch", 7, "--chunks", 2, "--data-method", data_method, cwd=tmp_path)
    assert [case.n_ranks for case in assert_valid(ended, tmp_path, 2).cases] == [1, 2]


@pytest.mark.parametrize("axis", ["pipeline", "time"])
def test_two_ranks_pass_arrays_on_through_pinned_memory(axis, tmp_path, two_devices, monkeypatch):
    monkeypatch.setenv("HPCRNN_HOST_GPU_LATE", "1")  # what MPI is given must have been waited for
    flags = ("--grid", f"{axis}=2", "--microbatches", 2, "--chunks", 2, "--transport", "staged")
    assert_valid(hpcrnn_run(2, *FLAGS, *flags, cwd=tmp_path), tmp_path, 2)


# The memory of the invented device is the host's, so that any MPI takes its pointers.
DIRECT = """
import sys
from hpcrnn.execution import cuda_aware
cuda_aware.probe = lambda *_: cuda_aware.CudaAwareness(True, "the stand-in's memory is the host's")
from hpcrnn.cli import main
sys.exit(main(["run", *sys.argv[1:]]))
"""


def test_two_ranks_exchange_arrays_of_the_device(tmp_path, two_devices, monkeypatch):
    monkeypatch.setenv("HPCRNN_HOST_GPU_LATE", "1")
    script = case_script(tmp_path, DIRECT)
    ended = mpirun(2, script, *map(str, FLAGS), "--batch", "7", "--transport", "direct", cwd=tmp_path)
    assert_valid(ended, tmp_path, 2)


def assert_launch_error(ended, *words):
    assert ended.code == 4, ended.err
    (line,) = ended.error_lines
    for word in ("machine.backend = cupy", *words):
        assert word in line


def test_no_device_ends_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("HPCRNN_HOST_GPU_COUNT", "0")
    assert_launch_error(hpcrnn("run", *FLAGS, cwd=tmp_path), "no usable GPU")


def test_too_little_memory_ends_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("HPCRNN_HOST_GPU_MEMORY", str(36 << 20))
    ended = hpcrnn("run", *FLAGS, "--hidden", 64, "--batch", 32, "--seq", 64, cwd=tmp_path)
    assert_launch_error(ended, "GiB of host (no GPU)'s memory are needed", "are free")


def test_ranks_do_not_share_a_device_unless_told_to(tmp_path):
    assert_launch_error(hpcrnn_run(2, *FLAGS, cwd=tmp_path), "rank 1 of this host has no GPU of its own, 1 there")
    assert_valid(hpcrnn_run(2, *FLAGS, "--allow-shared-gpu", cwd=tmp_path), tmp_path, 2)


def test_ranks_that_see_one_device_in_different_ways_do_not_share_it_unknowingly(tmp_path, two_devices):
    """Each is the first of its node that sees what it sees, and takes the first device of that: the same one."""
    run = [sys.executable, "-m", "hpcrnn", "run", *map(str, FLAGS)]
    ranks = [["-n", "1", "env", f"CUDA_VISIBLE_DEVICES={visible}", *run] for visible in ("1,0", "1")]
    mpirun_of = default_launcher()[0]
    ended = start([mpirun_of, *ranks[0], ":", *ranks[1]], cwd=tmp_path, timeout=TIMEOUT_S)
    uuid = "GPU-00010203-0405-0607-0809-0a0b0c0d0e02"
    assert_launch_error(ended, f"ranks 0-1 share {uuid}, host ")
    shared = [[*words, "--allow-shared-gpu"] for words in ranks]
    record = assert_valid(start([mpirun_of, *shared[0], ":", *shared[1]], cwd=tmp_path, timeout=TIMEOUT_S), tmp_path, 2)
    assert [host["gpu_of_rank"] for host in record.environment["hosts"]] == [uuid, uuid]


def test_a_device_has_the_name_of_its_part_or_of_its_place_where_it_has_no_other(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-1,MIG-2")
    assert uuid_of_gpu(1) == "MIG-2"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(cp.cuda.runtime, "getDeviceProperties", lambda _: {"uuid": b"cut"})
    assert uuid_of_gpu(0) == f"the GPU at {cp.cuda.runtime.deviceGetPCIBusId(0)}"


def test_an_old_device_steps(tmp_path, monkeypatch):
    monkeypatch.setenv("HPCRNN_HOST_GPU_CAPABILITY", "75")
    record = assert_valid(hpcrnn("run", *FLAGS, cwd=tmp_path), tmp_path, 1)
    assert "compute capability 7.5, below 8.0" in record.cases[0].kernel_details[0]


@pytest.mark.parametrize("balance", ["even", "weights:3,1"])
def test_ranks_on_a_gpu_and_on_a_cpu_share_the_batch(balance, tmp_path):
    flags = (*SMALL, "--hidden", 16, "--batch", 7, "--microbatches", 2, "--rank-backends", "cupy,numpy")
    ended = hpcrnn_run(2, *flags, "--balance", balance, cwd=tmp_path)
    assert ended.code == 0, ended.err
    record = read_record(tmp_path / "r.h5")
    whole = record.cases[-1]
    assert [case.verdict.status for case in record.cases] == ["VALID"] * len(record.cases)
    assert [case.backend for case in record.cases[:2]] == ["cupy", "numpy"]  # each is a base
    assert (whole.backend, whole.spec["machine"]["rank_backends"]) == ("cupy+numpy", ["cupy", "numpy"])
    assert whole.kernel.startswith("cupy float32 + ")
    assert len({case.id for case in record.cases}) == len(record.cases)
    assert ["gpu_of_rank" in host for host in record.environment["hosts"]] == [True, False]
    assert hpcrnn("verify", "r.h5", cwd=tmp_path).code == 0


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--precision", "bfloat16"], "machine.precision = 'bfloat16': allowed is float32, with rank_backends"),
        (["--gradient-sum", "nccl"], "machine.gradient_sum = 'nccl': allowed is mpi, with rank_backends"),
        (["--backend", "torch"], "machine.backend = 'torch': allowed is cupy,numpy, those of rank_backends"),
    ],
)
def test_what_ranks_on_gpus_cannot_do_beside_cpus_is_told_once(flags, line, tmp_path):
    ended = hpcrnn_run(2, *SMALL, "--rank-backends", "cupy,numpy", *flags, cwd=tmp_path)
    assert ended.code == 1
    assert ended.error_lines == [f"hpcrnn: error: {line}"]


def trained(folder, out):
    (case,) = read_record(folder / out).cases
    return [curve.held_out_loss.tolist() for curve in case.learning.curves]


@pytest.mark.parametrize("grid", ["data=2", "pipeline=2"])
def test_a_training_to_a_target_goes_on_from_its_checkpoint(grid, tmp_path, two_devices):
    flags = (*FLAGS, "--grid", grid, "--mode", "target", "--target-loss", 1e-3, "--eval-every", 2, "--seeds", 1)
    kept = ("--checkpoint", "kept.h5", "--resume")
    cut = case_script(
        tmp_path,
        """
import sys
from hpcrnn.benchmarks import training_file
from hpcrnn.cli import main
write, left = training_file.write_checkpoint, [2]
def write_and_fail(checkpoint, path):
    write(checkpoint, path)
    left[0] -= 1
    if not left[0]:
        raise RuntimeError("as if it had been killed")
training_file.write_checkpoint = write_and_fail
sys.exit(main(["run", *sys.argv[1:]]))
""",
    )
    assert hpcrnn_run(2, *flags, "--max-steps", 6, "--out", "whole.h5", cwd=tmp_path).code == 0
    assert mpirun(2, cut, *map(str, flags), *kept, "--max-steps", "6", "--out", "r.h5", cwd=tmp_path).code != 0
    ended = hpcrnn_run(2, *flags, *kept, "--max-steps", 6, "--out", "r.h5", cwd=tmp_path)
    assert ended.code == 0, ended.err
    assert trained(tmp_path, "r.h5") == trained(tmp_path, "whole.h5")
