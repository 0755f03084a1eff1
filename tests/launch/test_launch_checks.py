"""What is refused of a launch, what is warned of, and what must not be: all from facts, without MPI."""

import copy
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcrnn.errors import LaunchError
from hpcrnn.execution.launch_checks import (
    alias_warnings,
    binding_problem,
    gpu_problem,
    identity_problem,
    jobs_problem,
    met_problem,
    sharing_warnings,
)
from hpcrnn.execution.launch_facts import RankFacts, code_digest
from hpcrnn.execution.start import is_first, no_common_language
from hpcrnn.records.claim import Claim
from hpcrnn.records.mpi_library import MpiLibrary

MPICH = MpiLibrary("MPICH Version: 5.0.2\nMPICH configure: --with-pm=hydra")
OPEN_MPI = MpiLibrary("Open MPI v5.0.11, package: x")
SRUN = Claim("srun", "srun", 4, 0)
HYDRA = Claim("mpich", "an mpirun of MPICH's kind", 4, 0)
ORTE = Claim("openmpi", "Open MPI's mpirun", 4, 0)


def rank(cpus, launcher=range(8), machine="m1", host="h1", node=0, job=("", ""), identity="x"):
    return RankFacts(machine, host, node, frozenset(cpus), frozenset(launcher), job, identity)


# --- whether they met


@pytest.mark.parametrize(
    ("claim", "library", "words"),
    [
        (ORTE, MPICH, "Open MPI's mpirun started 4 ranks and each believes to be alone: mpi4py has loaded MPICH 5.0.2"),
        (HYDRA, OPEN_MPI, "an mpirun of MPICH's kind started 4 ranks and each believes to be alone"),
        (HYDRA, MPICH, "start with: the mpirun of MPICH 5.0.2 -n 4"),  # the mpirun of another environment
        (SRUN, MPICH, "start with: srun --mpi=pmi2 -n 4 hpcrnn run"),
        (SRUN, OPEN_MPI, "start with: srun --mpi=pmix -n 4 hpcrnn run"),
    ],
)
def test_ranks_that_never_met_are_refused_with_the_line_that_mends_it(claim, library, words):
    problem = met_problem(claim, 1, None, library, {})
    assert words in problem
    assert "\n" not in problem
    assert met_problem(claim, 1, 4, library, {}) == problem  # expecting four, and alone


@pytest.mark.parametrize(
    ("claim", "n_ranks", "expected"),
    [
        (None, 1, None),  # nobody said anything
        (None, 4, None),
        (SRUN, 4, None),
        (HYDRA, 4, 4),
        (SRUN, 1, 1),  # srun -n 4 hpcrnn run --expect-ranks 1: four runs, on purpose
        (Claim("srun", "srun", 1, 0), 1, None),
    ],
)
def test_what_is_as_it_was_said_or_meant_is_not_refused(claim, n_ranks, expected):
    assert met_problem(claim, n_ranks, expected, MPICH, {}) == ""


def test_another_number_of_ranks_is_refused_but_for_the_parts_of_a_heterogeneous_job():
    assert "srun started 4 ranks and MPI sees 2" in met_problem(SRUN, 2, None, OPEN_MPI, {})
    assert met_problem(SRUN, 8, None, OPEN_MPI, {"SLURM_HET_SIZE": "2"}) == ""
    assert met_problem(SRUN, 1, None, OPEN_MPI, {"SLURM_HET_SIZE": "2"}) != ""


def test_of_those_that_do_not_know_of_one_another_one_speaks():
    assert [is_first(replace(SRUN, rank=number)) for number in range(4)] == [True, False, False, False]
    assert is_first(None)
    silent = copy.copy(LaunchError("text", told=False))  # as between ranks
    assert (str(silent), silent.told, silent.exit_code) == ("text", False, 4)


PMIX = {"PMIX_NAMESPACE": "a@1", "PMIX_RANK": "0"}


@pytest.mark.parametrize(
    ("library", "variables", "refused"),
    [
        (MPICH, PMIX, True),
        (MPICH, {}, False),
        (MPICH, PMIX | {"PMI_FD": "9"}, False),  # MPICH's mpirun within a job of Open MPI's
        (replace(MPICH, has_pmix=True), PMIX, False),
        (MpiLibrary("MPICH Version: 4.3\nMPICH configure: --with-pmix=/opt/pmix"), PMIX, False),
        (OPEN_MPI, PMIX, False),
    ],
)
def test_a_library_that_would_end_the_process_is_told_before(library, variables, refused):
    problem = no_common_language(library, ORTE, variables)
    assert bool(problem) == refused
    if refused:
        assert "Open MPI's mpirun speaks PMIx alone, and mpi4py has loaded MPICH 5.0.2" in problem
        assert "start with: the mpirun of MPICH 5.0.2 -n 4" in problem
        assert "the launcher speaks PMIx alone" in no_common_language(library, None, variables)


# --- where they run


@pytest.mark.parametrize(
    ("ranks", "threads"),
    [
        ([rank({0}), rank({1})], 1),
        ([rank({0, 1}), rank({0, 1})], 1),
        ([rank({0, 1}), rank({2, 3})], 2),
        ([rank(range(8))] * 2, 4),
        ([rank({0}, machine="m1"), rank({0}, machine="m2", host="h2", node=1)], 1),  # each on its own machine
        ([rank(())] * 9, 4),  # a system that does not say
    ],
)
def test_a_core_for_each_thread_is_right(ranks, threads):
    assert binding_problem(ranks, threads, "srun") == ""
    assert sharing_warnings(ranks, threads) == ()


@pytest.mark.parametrize(
    ("family", "words"),
    [
        ("srun", "bind each to its own: srun --cpus-per-task=1 --cpu-bind=cores"),
        ("mpich", "mpirun -bind-to core:1"),
        ("openmpi", "mpirun --map-by slot:PE=1 --bind-to core"),
        ("other", "1 core(s) a rank"),
    ],
)
def test_ranks_bound_to_one_core_while_others_idle_are_refused(family, words):
    problem = binding_problem([rank({3})] * 4, 1, family)
    assert problem.startswith("4 rank(s) of 1 thread on 1 core(s) of host h1, bound to 3 where 0-7 could be had; ")
    assert words in problem


def test_the_crowd_of_several_is_found():
    ranks = [rank({0}), rank({1}), rank({2, 3}), rank({2, 3}), rank({2, 3})]
    assert "3 rank(s) of 1 thread on 2 core(s) of host h1, bound to 2-3 where 0-7" in binding_problem(ranks, 1, "mpich")
    other = [rank({0}), *[rank({1, 2}, machine="m2", host="h2")] * 3]
    assert "of host h2, bound to 1-2" in binding_problem(other, 1, "mpich")


def test_one_rank_with_more_threads_than_its_cores_is_refused_though_others_have_enough():
    ranks = [rank({0}), rank({1, 2, 3})]
    assert "1 rank(s) of 2 threads on 1 core(s) of host h1, bound to 0 where 0-7" in binding_problem(ranks, 2, "srun")


def test_threads_that_outnumber_the_cores_of_the_node_are_refused():
    ranks = [rank({0, 1, 2}, launcher={0, 1, 2})] * 2
    assert binding_problem(ranks, 2, "mpich") == (
        "machine.threads = 2: 2 rank(s) of 2 threads on 3 core(s) of one node; allowed is at most 1"
    )


def test_ranks_of_one_thread_may_share_the_cores_there_are_and_are_warned():
    inherited = [rank({0}, launcher={0})] * 2  # taskset -c 0 mpirun -n 2: somebody asked for it
    scarce = [rank({0}), *[rank({1})] * 8]  # nine ranks on eight cores: no binding would do
    asked_for = [rank({0})] * 2
    for ranks, overcommit in ((inherited, False), (scarce, False), (asked_for, True)):
        assert binding_problem(ranks, 1, "srun", overcommit=overcommit) == ""
        (warning,) = sharing_warnings(ranks, 1)
        assert "right for tests, not for timings" in warning
    assert sharing_warnings([rank({0, 1})] * 4, 1) == (
        "4 ranks share 2 core(s) of host h1: right for tests, not for timings; start no more ranks than cores",
    )
    likewise = [rank({0}, machine=m, host=m) for m in ("a", "a", "b", "b", "c", "c")]
    assert "of host a, and likewise on 2 more host(s)" in sharing_warnings(likewise, 1)[0]


masks = st.frozensets(st.integers(0, 5), min_size=1, max_size=6)


@given(st.lists(masks, min_size=1, max_size=6), st.integers(1, 3))
def test_what_is_refused_or_warned_of_cannot_have_its_cores(cpus, threads):
    """Against the definition: threads placed on cores one by one, with augmenting paths."""
    ranks = [rank(mask, launcher=mask) for mask in cpus]
    told = bool(binding_problem(ranks, threads, "srun") or sharing_warnings(ranks, threads))
    if told:
        assert not _placeable([mask for mask in cpus for _ in range(threads)])
    elif all(a <= b or b <= a or not a & b for a in cpus for b in cpus):  # nested or apart: as launchers bind
        assert _placeable([mask for mask in cpus for _ in range(threads)])


def _placeable(wanted):
    owner = {}

    def place(thread, seen):
        for core in wanted[thread] - seen:
            seen.add(core)
            if core not in owner or place(owner[core], seen):
                owner[core] = thread
                return True
        return False

    return all(place(thread, set()) for thread in range(len(wanted)))


# --- whether all are in one job, and what is one machine


def test_ranks_of_different_jobs_or_with_different_lists_of_nodes_are_refused():
    assert jobs_problem([rank({0}, job=("7", "n[1-2]"))] * 2) == ""
    assert jobs_problem([rank({0}, job=("7", "n[1-2]")), rank({1})]) == ""  # a daemon that forgot
    assert "different Slurm jobs: 7 and 8" in jobs_problem([rank({0}, job=("7", "n1")), rank({1}, job=("8", "n1"))])
    problem = jobs_problem([rank({0}, job=("7", "n1")), rank({1}, job=("7", "n[1-2]"))])
    assert "see different nodes in their Slurm job: n1 and n[1-2]" in problem


def test_one_machine_under_two_names_is_warned_of_and_its_cores_are_counted_once():
    ranks = [rank({0}, launcher={0}, host="n1", node=0), rank({0}, launcher={0}, host="n2", node=1)]
    (warning,) = alias_warnings(ranks)
    assert "2 nodes" in warning
    assert "one machine: n1, n2" in warning
    assert "2 ranks share 1 core(s) of host n1" in sharing_warnings(ranks, 1)[0]
    assert alias_warnings([ranks[0], replace(ranks[1], machine="m2")]) == ()


# --- what they run

SAME = {"hpcrnn": "0.1.0", "code": "abc", "Python": "3.11.7", "numpy": "2.4.6", "OMP_NUM_THREADS": "1"}


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("hpcrnn", "0.0.9", "have hpcrnn = 0.0.9, the others 0.1.0; start the same Python environment"),
        ("code", "def", "have code = def, the others abc"),
        ("Python", "3.12.1", "have Python = 3.12.1, the others 3.11.7"),
        ("numpy", "1.26.4", "have numpy = 1.26.4, the others 2.4.6"),
        (
            "OMP_NUM_THREADS",
            "unset",
            "have OMP_NUM_THREADS = unset, the others 1; hand it to all ranks: srun --export=",
        ),
    ],
)
def test_software_or_settings_that_differ_are_named_with_the_ranks(key, value, words):
    odd = SAME | {key: value}
    problem = identity_problem([SAME, SAME, odd, odd, SAME], ["a", "a", "b", "b", "c"])
    assert problem.startswith("rank(s) 2-3 on host b have")
    assert words in problem


def test_software_that_differs_everywhere_or_lacks_a_key_is_told_too():
    assert identity_problem([SAME] * 3, ["a"] * 3) == ""
    different = [SAME | {"numpy": str(n)} for n in range(5)]
    assert "others" in identity_problem(different, [f"h{n}" for n in range(5)])
    lacking = {key: value for key, value in SAME.items() if key != "numpy"}
    assert "rank(s) 1 on host b have numpy = unknown" in identity_problem([SAME, lacking, SAME], ["a", "b", "c"])


def test_the_digest_of_the_sources_changes_with_names_and_contents(tmp_path):
    def digest(**files):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        (folder / "sub").mkdir(parents=True)
        for name, text in files.items():
            (folder / name.replace("__", "/").replace("_", ".")).write_text(text)
        return code_digest(folder)

    plain = digest(a_py="x", sub__b_cu="y")
    assert digest(a_py="x", sub__b_cu="y") == plain
    assert digest(a_py="x", sub__b_cu="y", c_txt="notes", d_pyc="compiled") == plain
    others = {
        digest(a_py="x"),
        digest(a_py="y", sub__b_cu="x"),
        digest(a_py="x", b_cu="y"),
        digest(a_py="xy", sub__b_cu=""),
    }
    assert len(others | {plain}) == 5


# --- their GPUs


def test_ranks_with_one_gpu_between_them_are_refused_unless_allowed():
    gpus, hosts = ["GPU-1", "GPU-2", "GPU-1", "GPU-3"], ["a", "a", "a", "b"]
    problem = gpu_problem(gpus, hosts, shared=False)
    assert "ranks 0,2 share GPU-1, host a" in problem
    assert "--gpus-per-node=N and no binding" in problem
    assert "machine.allow_shared_gpu = true" in problem
    assert gpu_problem(gpus, hosts, shared=True) == ""
    assert gpu_problem(["GPU-1", "GPU-2"], ["a", "a"], shared=False) == ""
    assert gpu_problem(["", ""], ["a", "a"], shared=False) == ""  # a driver that does not tell
