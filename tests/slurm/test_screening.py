"""``hpcrnn screen``: which node is slow, which computes wrong, and what cannot be told."""

import json
from dataclasses import replace

import numpy as np
import pytest
from reporting.factory import make_case, make_record

from hpcrnn.cli import main
from hpcrnn.errors import HpcrnnError
from hpcrnn.records.hdf5 import write_record
from hpcrnn.reporting.comparison.screening import screen


def node(name, median_s=0.4, *, n=40, spread=0.01, seed=0, kind="srun", ranks_on=None, slurm=True, **case):
    """A record of one node; of several where ``ranks_on`` says which rank was on which."""
    random = np.random.default_rng([seed, *name.encode()])
    samples = median_s * (1 + spread * random.uniform(-1, 1, n))
    names = ranks_on or [name]
    cases = [make_case(len(names), samples=list(samples), hidden=8, **case)]
    record = make_record(cases, source=f"{name}.h5", seed=abs(hash(name)) % 2**32)
    hosts = [{"hostname": "one-machine", **({"slurm_node": of} if slurm else {})} for of in names]
    return replace(record, environment={**record.environment, "hosts": hosts, "launcher": {"kind": kind}})


def results(screening):
    return {row.node: row.result for row in screening.rows}


def test_equal_nodes_are_ok():
    screening = screen([node(f"n{k}", seed=k) for k in range(8)])
    assert set(results(screening).values()) == {"ok"}
    assert screening.exit_code == 0


@pytest.mark.parametrize("factor", [1.08, 1.3, 5.0])
@pytest.mark.parametrize("n_nodes", [3, 16])
def test_a_slow_node_is_named_and_no_other(factor, n_nodes):
    records = [node(f"n{k}", 0.4 * (factor if k == 2 else 1), seed=k) for k in range(n_nodes)]
    screening = screen(records)
    assert screening.named("slow") == ("n2",)
    assert screening.rows[0].node == "n2"
    assert screening.exit_code == 3
    if n_nodes > 3:
        assert screening.named("ok") == tuple(sorted(f"n{k}" for k in range(n_nodes) if k != 2))


def test_a_fast_node_fails_nothing():
    screening = screen([node(f"n{k}", 0.3 if k == 1 else 0.4, seed=k) for k in range(5)])
    assert screening.named("fast") == ("n1",)
    assert screening.exit_code == 0


def test_of_two_nodes_one_is_slow_and_the_other_fast():
    screening = screen([node("n1"), node("n2", 0.6)])
    assert results(screening) == {"n2": "slow", "n1": "fast"}


def test_a_node_that_computes_wrong_is_wrong_however_fast():
    screening = screen([node("n1"), node("n2"), node("n3", 0.1, valid=False)])
    assert screening.named("wrong") == ("n3",)
    assert screening.rows[0].node == "n3"
    assert screening.named("ok") == ("n1", "n2")  # what is wrong is no yardstick
    assert screening.exit_code == 2


def test_wrong_comes_before_slow():
    assert screen([node("n1"), node("n2", valid=False), node("n3", 0.9)]).exit_code == 2


@pytest.mark.parametrize("doubt", [{"n": 4}, {"spread": 0.5, "n": 12}])
def test_what_cannot_be_told_is_said_to_be_undecided(doubt):
    screening = screen([node("n1"), node("n2"), node("n3", 0.42, **doubt)])
    assert results(screening)["n3"] == "undecided"
    assert screening.exit_code == 0


def test_where_all_others_are_wrong_nothing_can_be_told():
    screening = screen([node("n1"), node("n2", valid=False)])
    assert results(screening) == {"n2": "wrong", "n1": "undecided"}


def test_false_alarms_are_rare():
    """32 equal nodes, 6 times: an interval beyond the tolerance of 5 % by noise of 3 % alone is as good as never."""
    alarms = 0
    for trial in range(6):
        screening = screen([node(f"n{k}", spread=0.03, seed=1000 * trial + k, n=20) for k in range(32)])
        alarms += len(screening.named("slow", "fast"))
    assert alarms == 0


def test_cases_are_held_against_the_same_case():
    """Nodes that ran another problem are others' business."""
    records = [node("n1"), node("n2"), node("n1", 4.0, batch=128), node("n2", 4.0, batch=128)]
    assert {row.result for row in screen(records).rows} == {"ok"}


@pytest.mark.parametrize("records", [[node("n1")], [node("n1"), node("n1", 0.5, seed=3)]])
def test_one_node_alone_is_refused(records):
    with pytest.raises(HpcrnnError, match="the files are of one node"):
        screen(records)


def test_a_file_of_several_nodes_is_refused():
    with pytest.raises(HpcrnnError, match=r"n2\.h5: was measured on 2 nodes"):
        screen([node("n1"), node("n2", ranks_on=["n2", "n3"])])


def test_under_mpirun_the_name_slurm_gives_is_not_believed():
    """Hydra hands that of one node to the ranks of all."""
    with pytest.raises(HpcrnnError, match="one node"):
        screen([node("n1", kind="mpirun"), node("n2", kind="mpirun")])
    assert screen([node("n1", kind="srun"), node("n2", kind="srun")]).nodes == ("n1", "n2")


def test_without_slurm_hosts_are_known_by_their_own_names():
    with pytest.raises(HpcrnnError, match="one node"):
        screen([node("n1", slurm=False), node("n2", slurm=False)])


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for k in range(1, 5):
        write_record(node(f"n{k}", 0.9 if k == 3 else 0.4, seed=k), tmp_path / f"n{k}.h5")
    return [f"n{k}.h5" for k in range(1, 5)]


def test_the_command_names_the_slow_node(files, capsys):
    assert main(["screen", *files]) == 3
    out = capsys.readouterr().out
    assert "4 nodes, 5.0 % allowed; slow: n3" in out
    (line,) = [line for line in out.splitlines() if line.startswith("n3 ")]
    assert line.rstrip().endswith("SLOW")
    assert "2.25" in line


def test_a_tolerance_lets_it_pass(files, capsys):
    assert main(["screen", *files, "--tolerance", "0.95"]) == 3
    assert main(["screen", "n1.h5", "n2.h5", "n4.h5"]) == 0
    assert "none stands out" in capsys.readouterr().out


def test_the_command_speaks_to_programs(files, capsys):
    assert main(["screen", *files, "--json"]) == 3
    found = json.loads(capsys.readouterr().out)
    assert (found["slow"], found["wrong"], found["exit_code"]) == (["n3"], [], 3)
    assert {row["node"]: row["result"] for row in found["rows"]}["n1"] == "ok"


@pytest.mark.parametrize("value", ["0", "1", "-0.1", "nan", "x"])
def test_a_tolerance_that_is_none_is_refused(files, capsys, value):
    assert main(["screen", *files, f"--tolerance={value}"]) == 1
    assert "--tolerance" in capsys.readouterr().err


def test_a_file_that_cannot_be_read_is_named(files, capsys):
    assert main(["screen", "n1.h5", "none.h5"]) == 1
    assert "none.h5" in capsys.readouterr().err
