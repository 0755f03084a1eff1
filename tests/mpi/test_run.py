"""Runs on real ranks: right, deterministic, the same whatever their number."""

from itertools import product

import numpy as np
import pytest
from launching import SMALL, case_script, hpcrnn_run, mpirun

from hpcrnn.execution.legs import device_times
from hpcrnn.records.hdf5 import read_record

pytestmark = pytest.mark.mpi


QUICK = {("lstm", 1), ("lstm", 3), ("elman", 2), ("gru", 4)}


@pytest.mark.parametrize(
    ("cell", "n_ranks"),
    [
        pytest.param(cell, n, marks=() if (cell, n) in QUICK else pytest.mark.thorough)
        for cell, n in product(("elman", "lstm", "gru"), (1, 2, 3, 4))
    ],
)
def test_every_cell_is_valid_on_any_number_of_ranks(cell, n_ranks, tmp_path):
    # 7 rows on 2, 3 and 4 ranks: no rank count divides them.
    ended = hpcrnn_run(n_ranks, *SMALL, "--cell", cell, "--batch", 7, "--chunks", 2, cwd=tmp_path)
    assert ended.code == 0, ended.err
    record = read_record(tmp_path / "r.h5")
    assert [case.n_ranks for case in record.cases] == ([1, n_ranks] if n_ranks > 1 else [1])
    for case in record.cases:
        assert case.verdict.status == "VALID"
        assert {check.quantity for check in case.verdict.checks} >= {"loss", "gradient layer0.R", "state layer1.h"}
        assert case.time_s.shape == (3, case.n_ranks, len(case.phases))
        assert case.warmup_s.shape == (1, case.n_ranks, len(case.phases))


def test_eight_oversubscribed_ranks_are_valid(tmp_path):
    ended = hpcrnn_run(8, *SMALL, "--batch", 11, "--data-method", "allreduce_flat", cwd=tmp_path)
    assert ended.code == 0, ended.err
    assert all(case.verdict.status == "VALID" for case in read_record(tmp_path / "r.h5").cases)


@pytest.mark.parametrize("mode", ["train", "gradient", "forward"])
@pytest.mark.parametrize("workload", ["adding", "synthetic"])
def test_every_mode_is_valid_on_features(mode, workload, tmp_path):
    ended = hpcrnn_run(2, *SMALL, "--mode", mode, "--workload", workload, "--microbatches", 2, cwd=tmp_path)
    assert ended.code == 0, ended.err
    assert all(case.verdict.status == "VALID" for case in read_record(tmp_path / "r.h5").cases)


@pytest.mark.parametrize("data_method", ["allreduce_bucketed", "allreduce_flat"])
def test_data_parallel_training_stays_on_the_serial_trajectory(data_method, tmp_path):
    ended = hpcrnn_run(
        3, *SMALL, "--dtype", "float64", "--batch", 7, "--max-repeats", 20, "--min-repeats", 20, "--clip", 0.1,
        "--data-method", data_method, "--optimizer", "sgd", "--lr", 0.1, cwd=tmp_path,
    )  # fmt: skip
    assert ended.code == 0, ended.err
    serial, data = read_record(tmp_path / "r.h5").cases
    assert serial.loss[-1] < serial.loss[0]
    # 21 steps of float64 rounding (1e-16 each, grown by a factor of a few hundred at the most).
    np.testing.assert_allclose(data.loss, serial.loss, rtol=1e-12)
    np.testing.assert_allclose(data.gradient_norm, serial.gradient_norm, rtol=1e-11)


def test_two_runs_with_one_seed_compute_the_same_bits(tmp_path):
    losses = []
    for name in ("a.h5", "b.h5"):
        ended = hpcrnn_run(2, *SMALL, "--out", name, cwd=tmp_path)
        assert ended.code == 0, ended.err
        losses.append([case.loss for case in read_record(tmp_path / name).cases])
    np.testing.assert_array_equal(losses[0], losses[1])


def test_a_record_says_what_it_ran_on(tmp_path):
    ended = hpcrnn_run(2, *SMALL, "--threads", 1, cwd=tmp_path)
    assert ended.code == 0, ended.err
    record = read_record(tmp_path / "r.h5")
    facts = record.environment
    assert len(facts["hosts"]) == 2
    assert facts["mpi"]["n_ranks"] == 2
    assert isinstance(facts["mpi"]["cuda_aware"], bool)
    assert facts["mpi"]["cuda_aware_how"]
    assert facts["workload"]["sha256"]
    assert facts["clock"]["sync"].startswith("MPI_Barrier")
    assert record.argv[:2] == ("hpcrnn", "run")
    data = record.cases[1]
    n_parameters = 256 * 7 + (7 + 12 + 1) * 48 + (12 + 12 + 1) * 48 + 13 * 256
    assert data.bytes_sent.tolist() == [4 * n_parameters + 8] * 2
    assert (data.peak_memory_bytes > 2**20).all()
    assert (data.kernel_details, data.device_time_s, data.device_peak_bytes) == ((), None, None)


def test_the_phases_of_a_step_add_up(tmp_path):
    ended = hpcrnn_run(2, *SMALL, cwd=tmp_path)
    assert ended.code == 0, ended.err
    for case in read_record(tmp_path / "r.h5").cases:
        np.testing.assert_allclose(case.time_s[:, :, 1:].sum(axis=2), case.time_s[:, :, 0], rtol=1e-9)
        assert (case.time_s >= 0).all()


SPINNING_AND_SLEEPING = """
import time
from hpcrnn.backends.numpy.engine import NumpyEngine
from hpcrnn.cli import main

backward, update = NumpyEngine.backward, NumpyEngine.update

def spin(self, *place):
    end = time.process_time() + 0.004
    while time.process_time() < end:
        pass
    backward(self, *place)

def sleep(self, norm):
    time.sleep(0.02)
    update(self, norm)

NumpyEngine.backward, NumpyEngine.update = spin, sleep
raise SystemExit(main())
"""


def test_cpu_time_is_told_from_time_asleep_phase_by_phase(tmp_path):
    script = case_script(tmp_path, SPINNING_AND_SLEEPING)
    few = ["--workload", "synthetic", "--threads", 1, "--microbatches", 2, "--max-repeats", 3, "--min-repeats", 3]
    ended = mpirun(2, script, "run", *map(str, [*SMALL, *few]), cwd=tmp_path)
    assert ended.code == 0, ended.err
    for case in read_record(tmp_path / "r.h5").cases:
        assert case.cpu_time_s.shape == case.time_s.shape == (3, case.n_ranks, len(case.phases))
        cpu = dict(zip(case.phases, np.moveaxis(case.cpu_time_s, 2, 0), strict=True))
        assert all((seconds >= 0).all() for seconds in cpu.values())
        np.testing.assert_allclose(sum(cpu.values()) - cpu["step"], cpu["step"], rtol=1e-9)
        # Two layers go backward in two micro-batches; nothing else of a step spins.
        assert (cpu["backward"] >= 4 * 0.004).all()
        # Asleep a process has no CPU time, and what else an update does is over in no time.
        assert (case.phase_s("update") - cpu["update"] > 0.01).all()
        assert (cpu["update"] < cpu["backward"]).all()


def test_a_reduced_check_is_cut_as_often_as_the_run_and_its_base(tmp_path):
    # Too large to be checked in full, and cut into more chunks than the reduced size of the serial base would have.
    ended = hpcrnn_run(
        2, "--workload", "synthetic", "--hidden", 256, "--layers", 2, "--batch", 32, "--seq", 128, "--chunks", 16,
        "--grid", "pipeline=2", "--warmup", 0, "--min-repeats", 1, "--max-repeats", 1, "--out", "r.h5", cwd=tmp_path,
    )  # fmt: skip
    assert ended.code == 0, ended.err
    cases = read_record(tmp_path / "r.h5").cases
    assert {case.verdict.problem for case in cases} == {"reduced to B2 T32 H256 L2"}
    assert {case.verdict.status for case in cases} == {"VALID"}


def test_an_uneven_split_is_warned_about_with_what_it_costs(tmp_path):
    ended = hpcrnn_run(2, *SMALL, "--seq", 9, "--grid", "time=2", cwd=tmp_path)
    assert ended.code == 0, ended.err
    expected = "time=2 splits steps unevenly, 5 on the busiest rank and 4.5 on average: 10.0% of the step is lost"
    assert expected in ended.err


SPEAKING_OF_A_DEVICE = """
from mpi4py import MPI
from hpcrnn.backends.numpy.engine import NumpyEngine
from hpcrnn.cli import main

rank = MPI.COMM_WORLD.Get_rank()
NumpyEngine.kernel_details = f"{rank} blocks"
NumpyEngine.device_seconds = {"forward": 0.25 + rank, "update": 0.125} if rank else {"forward": 0.25}
NumpyEngine.device_peak_bytes = rank + 7
raise SystemExit(main())
"""


def test_what_engines_say_of_their_devices_is_in_the_file(tmp_path):
    script = case_script(tmp_path, SPEAKING_OF_A_DEVICE)
    ended = mpirun(2, script, "run", *map(str, SMALL), "--workload", "synthetic", cwd=tmp_path)
    assert ended.code == 0, ended.err
    serial, data = read_record(tmp_path / "r.h5").cases
    assert (serial.kernel_details, data.kernel_details) == (("0 blocks",), ("0 blocks", "1 blocks"))
    assert (serial.device_peak_bytes.tolist(), data.device_peak_bytes.tolist()) == ([7], [7, 8])
    assert data.device_time_s.shape == data.time_s.shape
    for index, phase in enumerate(data.phases):
        measured = {"forward": [0.25, 1.25], "update": [np.nan, 0.125]}.get(phase, [np.nan, np.nan])
        np.testing.assert_array_equal(data.device_time_s[:, :, index], [measured] * 3)


def test_a_device_measures_no_phase_there_is_not():
    with pytest.raises(ValueError):
        device_times({"forwards": 0.25})
