"""site.toml: every key that is not right is named with the file, its value and what is allowed; nothing gets into a
script but what is meant to."""

import json
import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcrnn.errors import HpcrnnError, SpecError
from hpcrnn.slurm.jobs import Job
from hpcrnn.slurm.script import Places, render
from hpcrnn.slurm.site import Site, load_site, seconds

SHIPPED = Path(__file__).parents[2] / "jobs" / "site.toml"


def load(folder, text):
    path = folder / "site.toml"
    path.write_text(text)
    return load_site(path)


def test_an_empty_site_is_the_shipped_one(tmp_path):
    assert load(tmp_path, "") == load_site(SHIPPED)


@pytest.mark.parametrize(
    ("text", "key", "value", "allowed"),
    [
        ("[queues]", "queues", "{}", "queue, node, launch"),
        ('[queue]\npartiton = "main"', "queue.partiton", "'main'", "partition"),
        ("[queue]\npartition = 3", "queue.partition", "3", "text"),
        ('[queue]\npartition = ""', "queue.partition", "''", "a text without blanks"),
        ('[queue]\npartition = "main long"', "queue.partition", "'main long'", ""),
        ('[queue]\npartition = "main\\n"', "queue.partition", "'main\\n'", ""),
        ('[queue]\naccount = "a\\n#SBATCH --nodes=9"', "queue.account", "'a\\n#SBATCH", ""),
        ('[queue]\nqos = "$(reboot)"', "queue.qos", "'$(reboot)'", ""),
        ('[queue]\nreservation = "a\'b"', "queue.reservation", '"a\'b"', ""),
        ('[queue]\nconstraint = "a b"', "queue.constraint", "'a b'", "genoa&ib"),
        ('[queue]\ntime = "1h"', "queue.time", "'1h'", "HH:MM:SS"),
        ('[queue]\ntime = "00:30:00\\n"', "queue.time", "'00:30:00\\n'", ""),
        ('[queue]\ntime = "1:2:3:4"', "queue.time", "'1:2:3:4'", ""),
        ("[queue]\ntime = 30", "queue.time", "30", "text"),
        ("[queue]\nwarn_s = 4", "queue.warn_s", "4", ">= 5"),
        ('[queue]\ntime = "2"\nwarn_s = 120', "queue.warn_s", "120", "less than queue.time = 2, 120 s"),
        ('[queue]\nexclusive = "yes"', "queue.exclusive", "'yes'", "true or false"),
        ('[queue]\nflags = "--mail-type=END"', "queue.flags", "'--mail-type=END'", ""),
        ('[queue]\nflags = ["--mail-type END"]', "queue.flags", "--mail-type END", ""),
        ('[queue]\nflags = ["-N4"]', "queue.flags", "-N4", "long form"),
        ('[queue]\nflags = ["--x=a\\n"]', "queue.flags", "--x=a\\n", ""),
        ('[queue]\nflags = ["--nodes=4"]', "queue.flags", "'--nodes=4'", "follows from the sweep"),
        ('[queue]\nflags = ["--ntask=4"]', "queue.flags", "'--ntask=4'", ""),
        ('[queue]\nflags = ["--time=4"]', "queue.flags", "'--time=4'", "queue.time"),
        ('[queue]\nflags = ["--gpus-per-node=4"]', "queue.flags", "'--gpus-per-node=4'", "node.gpus"),
        ('[queue]\nflags = ["--wait"]', "queue.flags", "'--wait'", "handed over"),
        ('[queue]\nflags = ["--clusters=b"]', "queue.flags", "'--clusters=b'", "on the cluster they are for"),
        ("[node]\nranks = 0", "node.ranks", "0", ">= 1"),
        ("[node]\nranks = 1.5", "node.ranks", "1.5", "integer"),
        ("[node]\ngpus = -1", "node.gpus", "-1", ">= 0"),
        ('[node]\nhint = "no multithread"', "node.hint", "'no multithread'", ""),
        ('[launch]\ncommand = "srun"', "launch.command", "'srun'", ""),
        ("[launch]\ncommand = []", "launch.command", "[]", "{ranks}"),
        ('[launch]\ncommand = ["srun"]', "launch.command", "['srun']", "{ranks}"),
        ('[launch]\nsetup = ["a\\nb"]', "launch.setup", "a\\nb", "each on one line"),
        ('[launch.variables]\n"A B" = "1"', "launch.variables", "A B", ""),
        ('[launch.variables]\n"A;reboot" = "1"', "launch.variables", "A;reboot", ""),
        ('[launch.variables]\nA = "1\\n2"', "launch.variables.A", "1\\n2", "on one line"),
        ("[launch.variables]\nA = 1", "launch.variables.A", "1", "text"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, text, key, value, allowed):
    with pytest.raises(SpecError) as error:
        load(tmp_path, text)
    told = str(error.value)
    assert told.startswith(f"{tmp_path / 'site.toml'}: {key}"), told
    assert value in told
    assert ": allowed is " in told
    assert allowed in told
    assert "\n" not in told
    assert error.value.exit_code == 1


@pytest.mark.parametrize("text", [None, "[queue", "\xff"])
def test_a_file_that_is_none_is_named(tmp_path, text):
    path = tmp_path / "site.toml"
    if text is not None:
        path.write_bytes(text.encode("latin-1"))
    with pytest.raises(HpcrnnError, match=r"site\.toml"):
        load_site(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("constraint", "[rack1|rack2]"),
        ("constraint", "(genoa&ib)*2"),
        ("partition", "short,long"),
        ("time", "1-12"),
        ("flags", ["--mail-type=END", "--comment=x", "--nodelist=n[1-4]", "--mem=0", "--wait-all-nodes=1"]),
    ],
)
def test_what_sites_need_is_allowed(tmp_path, key, value):
    site = load(tmp_path, f"[queue]\n{key} = {value!r}")
    text = render(Job("tiny-n1", 1, 1, 1), site, PLACES)
    for word in value if isinstance(value, list) else [f"--{key}={value}"]:
        assert f"#SBATCH {word}\n" in text


@pytest.mark.parametrize(
    ("time", "expected"),
    [("30", 1800), ("0", 0), ("30:15", 1815), ("1:02:03", 3723), ("2-3", 183600), ("1-2:30", 95400), ("1-0:0:5", None)],
)
def test_times_are_read_as_sbatch_reads_them(tmp_path, time, expected):
    if expected is None:
        with pytest.raises(SpecError, match=r"queue\.time"):
            load(tmp_path, f'[queue]\ntime = "{time}"')
    else:
        assert load(tmp_path, f'[queue]\ntime = "{time}"').queue.time == time
        assert seconds(time) == expected


PLACES = Places("hpcrnn", Path("s.toml"), Path("site.toml"), Path("results/s"))
KEYS = ["account", "partition", "qos", "constraint", "reservation", "time", "flag", "hint", "variable", "value"]


@given(
    st.sampled_from(KEYS), st.text(min_size=1, max_size=30).map(lambda s: s.replace("x", "\n#SBATCH -N9 ; $(reboot)"))
)
def test_no_value_becomes_a_line_or_a_word_of_its_own(tmp_path_factory, key, text):
    quoted = json.dumps(text).replace("\x7f", "\\u007f")  # of which TOML takes all that JSON writes, but for halves
    toml = {
        "flag": f'[queue]\nflags = ["--comment=" , {quoted}]',
        "hint": f"[node]\nhint = {quoted}",
        "variable": f'[launch.variables]\n{quoted} = "1"',
        "value": f"[launch.variables]\nA = {quoted}",
    }.get(key, f"[queue]\n{key} = {quoted}")
    try:
        site = load(tmp_path_factory.getbasetemp(), toml)
    except HpcrnnError:
        return
    lines = render(Job("tiny-n1", 1, 1, 1), site, PLACES).split("\n")
    plain = render(Job("tiny-n1", 1, 1, 1), Site(), PLACES).split("\n")
    assert len(lines) <= len(plain) + 1
    for line in lines:
        if line.startswith("#SBATCH"):
            assert len(line.split()) == 2
            assert not set(line) & set("\"'\\;$`")
        elif line not in plain:
            assert shlex.split(line)[0] == "export"
            assert len(shlex.split(line)) == 2
