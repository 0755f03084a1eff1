"""Whether MPI takes device pointers: every library's own way to say so, and that all ranks draw one conclusion."""

import ctypes
import json
import sys
from types import SimpleNamespace

import pytest
from launching import SMALL, case_script, mpirun, start

from hpcrnn.benchmarks import planning
from hpcrnn.benchmarks.planning import make_plan
from hpcrnn.benchmarks.run import settle_transport
from hpcrnn.errors import LaunchError
from hpcrnn.execution.cuda_aware import CudaAwareness, Loaded, agreed, probe, settled
from hpcrnn.execution.local_rank import gpus_in_sight, local_rank
from hpcrnn.spec import Grid, build_spec
from hpcrnn.workloads import open_workload

YES, NO = CudaAwareness(True, "asked: yes"), CudaAwareness(False, "asked: no")

MPICH = "MPICH Version:      5.0.2\nMPICH CC: /opt/intel/cray/mvapich/gcc"
OPEN_MPI = "Open MPI v5.0.6, package: Open MPI me@intel-cray Distribution, ident: 5.0.6"
OLD_OPEN_MPI = "Open MPI v4.0.7, package: Open MPI me@host Distribution, ident: 4.0.7"
SPECTRUM = "Open MPI v10.3.0.00rtm0, package: IBM Spectrum MPI, ident: IBM Spectrum MPI"
PARASTATION = "MPICH Version:\t4.1.1\nMPICH configure: --with-confset=gcc\nParaStation MPI: 5.10"
MVAPICH = "MVAPICH2 Version      :\t2.3.7\nMVAPICH2 Device: ch3:mrail"
CRAY = "MPI VERSION    : CRAY MPICH version 8.1.28.29 (ANL base 3.4a2)\nMPI BUILD INFO : CRAY"
INTEL = "Intel(R) MPI Library 2021.{} for Linux* OS\n"
GTL = "7f00-7f10 r-xp 00000000 fe:00 1  /opt/cray/pe/lib64/libmpi_gtl_cuda.so.0.5.1\n"


def cuda(answer):
    """A library's ``MPIX_Query_cuda_support``."""
    return {"MPIX_Query_cuda_support": lambda: answer}


def gpu(answer, error=0):
    """A library's ``MPIX_GPU_query_support``; the other function of MPICH must not be called."""

    def query(kind, flag):
        assert kind == 0  # MPIX_GPU_SUPPORT_CUDA
        ctypes.cast(flag, ctypes.POINTER(ctypes.c_int))[0] = answer
        return error

    def abort():
        raise AssertionError("up to MPICH 3.4, this ends the process")

    return {"MPIX_GPU_query_support": query, "MPIX_Query_cuda_support": abort}


def ask(version, functions=(), variables=(), maps=""):
    return probe(Loaded(version, dict(functions).get, dict(variables), maps))


@pytest.mark.parametrize(
    ("aware", "word", "asked"),
    [
        (True, "says yes", (MPICH, gpu(1))),
        (False, "says no", (MPICH, gpu(0))),
        (False, "says no", (MPICH, gpu(1, error=17))),
        (False, "has no MPIX_Query_cuda_support", ("MPICH Version:\t3.3.2",)),
        (True, "MPIX_Query_cuda_support says yes", (OPEN_MPI, cuda(1))),
        (False, "MPIX_Query_cuda_support says no", (OPEN_MPI, cuda(0))),
        (False, "before 4.1", (OLD_OPEN_MPI, cuda(1))),
        (False, "has no", (SPECTRUM,)),
        (True, "MPIX_Query_cuda_support says yes", (PARASTATION, {**gpu(0), **cuda(1)})),
        (False, "MV2_USE_CUDA or MVP_USE_CUDA is not 1", (MVAPICH, cuda(1))),
        (True, "says yes", (MVAPICH, cuda(1), {"MV2_USE_CUDA": "1"})),
        (False, "says no", (MVAPICH, cuda(0), {"MV2_USE_CUDA": "1"})),
        (False, "MPICH_GPU_SUPPORT_ENABLED is not 1", (CRAY, gpu(1), {"MPICH_GPU_SUPPORT_ENABLED": "0"}, GTL)),
        (False, "libmpi_gtl_cuda is not loaded", (CRAY, gpu(1), {"MPICH_GPU_SUPPORT_ENABLED": "1"})),
        (True, "MPICH_GPU_SUPPORT_ENABLED is on", (CRAY, {}, {"MPICH_GPU_SUPPORT_ENABLED": "1"}, GTL)),
        (False, "before 2021.13", (INTEL.format(9), {}, {"I_MPI_OFFLOAD": "1"})),
        (False, "I_MPI_OFFLOAD is not 1", (INTEL.format(14), gpu(1))),
        (True, "I_MPI_OFFLOAD is on", (INTEL.format(14), {}, {"I_MPI_OFFLOAD": "1"})),
        (False, "is level_zero", (INTEL.format(14), {}, {"I_MPI_OFFLOAD": "1", "I_MPI_OFFLOAD_MODE": "level_zero"})),
        (False, "has no", ("",)),
    ],
)
def test_every_library_is_asked_in_its_own_way(aware, word, asked):
    found = ask(*asked)
    assert found.aware is aware, found.how
    assert word in found.how
    assert "\n" not in found.how


def test_a_question_that_fails_is_a_no():
    def broken(_name):
        raise OSError("cannot be opened")

    assert probe(Loaded(OPEN_MPI, broken, {}, "")) == CudaAwareness(False, "MPI could not be asked: OSError")


def test_mpi_that_is_not_running_is_not_asked(tmp_path):
    code = (
        "import mpi4py; mpi4py.rc.initialize = False; from hpcrnn.execution.cuda_aware import probe; print(probe().how)"
    )
    assert start([sys.executable, "-c", code], cwd=tmp_path, timeout=60).out.strip() == "MPI is not running"


def test_the_answer_of_the_ranks_is_the_first_no():
    assert agreed([YES, YES]) == YES
    assert agreed([NO, NO]) == NO
    assert agreed([YES, YES, NO]) == CudaAwareness(False, "rank 2: asked: no")


def test_what_the_transport_comes_to():
    assert [settled(name, YES) for name in ("auto", "staged", "direct")] == ["direct", "staged", "direct"]
    assert [settled(name, NO) for name in ("auto", "staged")] == ["staged", "staged"]
    with pytest.raises(LaunchError) as raised:
        settled("direct", NO)
    assert str(raised.value) == (
        "machine.transport = direct: allowed is staged or auto: MPI takes no pointers to a GPU's memory: asked: no"
    )
    assert raised.value.exit_code == 4


@pytest.mark.parametrize(
    ("backend", "n_ranks", "answer", "expected"),
    [
        ("numpy,cupy", 2, YES, "direct"),
        ("cupy", 2, NO, "staged"),
        ("cupy", 1, NO, "auto"),  # nothing meets MPI
        ("numpy", 2, NO, "auto"),
    ],
)
def test_the_specification_of_several_gpus_says_what_auto_came_to(backend, n_ranks, answer, expected):
    world = SimpleNamespace(size=n_ranks, comm=SimpleNamespace(allgather=lambda _: [answer] * n_ranks))
    spec = settle_transport(build_spec({}, {"backend": backend}), world)
    assert spec.machine.transport == expected


@pytest.mark.parametrize("transport", ["direct", "staged"])
def test_an_engine_hears_of_the_transport_and_of_its_number_on_the_node(transport, monkeypatch):
    heard = {}

    def make_engine(*_operands, **options):
        heard.update(options)
        raise StopIteration

    spec = build_spec({}, {"backend": "cupy", "hidden": 8, "layers": 1, "seq": 4, "batch": 2, "transport": transport})
    plan = make_plan(spec, open_workload(spec), Grid())
    monkeypatch.setattr(planning, "make_engine", make_engine)
    with pytest.raises(StopIteration):
        plan.executor(0, "cupy", SimpleNamespace(exchange=None, line=None, local_rank=3))
    assert heard == {"direct": transport == "direct", "local_rank": 3}


def test_ranks_count_among_those_that_see_the_same_gpus():
    assert [local_rank(["all"] * 4, n) for n in range(4)] == [0, 1, 2, 3]
    # Each has its own, or two share: GPU 0 of what they see is the right one, then GPU 1.
    assert [local_rank(["0", "1", "0", "1"], n) for n in range(4)] == [0, 0, 1, 1]


def test_gpus_in_sight_are_those_of_the_variable_and_of_the_permissions(tmp_path):
    (tmp_path / "dev").mkdir()
    for name in ("nvidia1", "nvidia0", "nvidiactl", "nvidia-uvm", "null"):
        (tmp_path / "dev" / name).touch()
    assert gpus_in_sight({}, tmp_path) == "all of nvidia0,nvidia1"
    assert gpus_in_sight({"CUDA_VISIBLE_DEVICES": "1"}, tmp_path) == "1 of nvidia0,nvidia1"
    assert gpus_in_sight({}, tmp_path / "none") == "all of "


PROGRAM = """
import json, os, sys
from mpi4py import MPI
from hpcrnn.execution import cuda_aware
os.environ["CUDA_VISIBLE_DEVICES"] = "0" if MPI.COMM_WORLD.rank == 2 else "1"
before = open("/proc/self/maps").read().count("libmpi")
truth = cuda_aware.probe()
after = open("/proc/self/maps").read().count("libmpi")
cuda_aware.probe = lambda: cuda_aware.CudaAwareness(MPI.COMM_WORLD.rank != 1, "pretended")
from hpcrnn.execution.world import World
world = World.start()
facts = world.facts()
found = world.comm.gather([truth.how, after - before, facts["cuda_aware"], facts["cuda_aware_how"], world.local_rank])
if world.is_root:
    print("found " + json.dumps(found))
    sys.stdout.flush()
from hpcrnn.cli import main
sys.exit(main(["run", *sys.argv[1:]]))
"""


@pytest.mark.mpi
def test_ranks_agree_and_direct_is_refused_where_one_cannot(tmp_path):
    # Only found, never imported: the refusal comes first.
    (tmp_path / "cupy.py").write_text("raise SystemError")
    flags = [*map(str, SMALL), "--backend", "numpy,cupy", "--transport", "direct"]
    ended = mpirun(3, case_script(tmp_path, PROGRAM), *flags, cwd=tmp_path)
    assert ended.code == 4, ended.err
    (line,) = ended.error_lines
    assert line.startswith("hpcrnn: error: machine.transport = direct: allowed is staged or auto: ")
    assert line.endswith(": rank 1: pretended")
    assert "Traceback" not in ended.err
    (line,) = (text for text in ended.out.splitlines() if text.startswith("found "))
    found = json.loads(line.removeprefix("found "))
    assert [rank[1:] for rank in found] == [[0, False, "rank 1: pretended", local] for local in (0, 1, 0)]
    assert all(how and "could not be asked" not in how for how, *_ in found)
    assert not (tmp_path / "r.h5").exists()
