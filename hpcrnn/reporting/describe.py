"""Cases, hosts and losses in a few words: every name a table, a legend or a caption shows."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from hpcrnn.data_methods import BELONGS, leg_steps
from hpcrnn.records.record import Case, Check, Record, Verdict, input_size
from hpcrnn.records.split import CHAIN
from hpcrnn.recurrence import CORRECTED
from hpcrnn.reporting.units import format_bytes, format_hertz, format_seconds, plural, printable, shorten
from hpcrnn.workloads import registry

PLAIN_VALUES = {
    "model.activation": "tanh",
    "model.reset": "after",
    "model.input": "auto",
    "model.forget_bias": 0.0,
    "model.forget_init": "constant",
    "model.chrono_span": 1000,
    "training.carry": False,
    "parallel.balance": "even",
    "parallel.data_method": "allreduce_bucketed",
    "parallel.sync_every": 8,
    "parallel.outer_lr": 0.7,
    "parallel.outer_momentum": 0.9,
    "parallel.staleness": 2,
    "parallel.node_size": None,
    "training.clip": None,
    "training.target_loss": None,
    "training.seeds": 3,
    "training.max_steps": 1000,
    "training.eval_every": 20,
    "training.eval_rows": None,
    "problem.features": None,
    "problem.sequences": "windows",
    "problem.batching": "naive",
    "problem.spread": "even",
    "recurrence.tolerance": 1e-6,
    "recurrence.max_rounds": None,
    "recurrence.burn_in": 0,
    "recurrence.halo_codec": "none",
}
"""Values that go without saying: mentioned only where they differ, and meant where a file does not say."""

IN_THE_LABEL = (
    *(f"parallel.{key}" for key in ("grid", "order", "virtual_stages", "microbatches", "chunks", "grad_codec")),
    *(f"parallel.{key}" for key in ("sync_every", "staleness", "node_size")),
    "recurrence.method",
    "recurrence.fold",
    "training.target_loss",
)
"""What the label of a case, or its mode, already says."""


def describe_problem(case: Case) -> str:
    """Say what is computed: ``lstm H512 L2 D512 · B64 T64 · float32 · stdlib · train``."""
    return join_tokens(_main_tokens(case))


def join_tokens(tokens: Mapping[str, str]) -> str:
    """Join the tokens of a problem, those of one group by a space and groups by a middle dot."""
    groups: dict[str, list[str]] = {}
    for key, token in tokens.items():
        groups.setdefault(_GROUP.get(key, key), []).append(token)
    return " · ".join(" ".join(group) for group in groups.values())


_GROUP = {
    "model.cell": "model",
    "model.hidden": "model",
    "model.layers": "model",
    "model.embed": "model",
    "problem.batch": "data",
    "problem.seq": "data",
    **dict.fromkeys(("problem.workload", "problem.sequences", "problem.batching", "problem.spread"), "text"),
}


def _main_tokens(case: Case) -> dict[str, str]:
    model, data = _section(case, "model"), _section(case, "problem")
    training = _section(case, "training")
    return {
        "model.cell": printable(model.get("cell", "?")),
        "model.hidden": f"H{model.get('hidden', '?')}",
        "model.layers": f"L{model.get('layers', '?')}",
        "model.embed": f"D{input_size(model) or '?'}",
        "problem.batch": f"B{data.get('batch', '?')}",
        "problem.seq": f"T{data.get('seq', '?')}",
        "model.dtype": printable(case.precision),
        "problem.workload": shorten(printable(data.get("workload", "?")), 32),
        **_sequence_tokens(data),
        "training.mode": _mode_token(training),
    }


def _mode_token(training: Mapping[str, Any]) -> str:
    """``train``, ``gradient``, ``forward``, or ``train to 2.5``: mode ``target`` with its target."""
    mode, target = training.get("mode", "?"), training.get("target_loss")
    return f"train to {target:g}" if mode == "target" and isinstance(target, float | int) else printable(mode)


def _sequence_tokens(data: Mapping[str, Any]) -> dict[str, str]:
    """``lines packed skewed:1``: how a text was cut and batched, where not into windows."""
    if data.get("sequences", "windows") == "windows":
        return {}
    words = {
        key: printable(data.get(key, PLAIN_VALUES[f"problem.{key}"])) for key in ("sequences", "batching", "spread")
    }
    return {f"problem.{key}": word for key, word in words.items() if (key, word) != ("spread", "even")}


def _all_tokens(case: Case) -> dict[str, str]:
    """Every setting that makes a case what it is, one short token a key."""
    tokens = _main_tokens(case)
    for section in ("model", "problem", "training", "parallel"):
        for key, value in _section(case, section).items():
            name = f"{section}.{key}"
            if name not in tokens and name not in IN_THE_LABEL and not _goes_without_saying(case, name):
                tokens[name] = _token(name, key, value)
    tokens |= _recurrence_tokens(case)
    threads = _section(case, "machine").get("threads", 1)
    tokens["machine.threads"] = plural(threads, "thread") if isinstance(threads, int) else printable(threads)
    if "gradient_sum" in case.how:
        tokens["machine.gradient_sum"] = f"sums by {printable(case.how['gradient_sum']).upper()}"
    if case.transport:
        tokens["machine.transport"] = f"MPI {case.transport}"
    tokens["kernel"] = shorten(printable(case.kernel), 32)
    return tokens


def _goes_without_saying(case: Case, name: str) -> bool:
    """Whether a data method means nothing, for there are no replicas, or is in the label; or a key is another's."""
    key = name.partition(".")[2]
    if key in BELONGS:
        return case.split.data_method not in BELONGS[key]
    return key == "data_method" and ("data" not in dict(case.split.axes) or bool(case.split.exchange))


def _recurrence_tokens(case: Case) -> dict[str, str]:
    """Say what the method's options are: its tolerance, and what is not at its plain value; nothing of a chain."""
    section = {} if case.method == CHAIN else _section(case, "recurrence")
    named = {f"recurrence.{key}": (key, value) for key, value in section.items()}
    return {
        name: _token(name, key, value)
        for name, (key, value) in named.items()
        if name not in IN_THE_LABEL and (key == "tolerance" or value != PLAIN_VALUES.get(name))
    }


def _token(name: str, key: str, value: object) -> str:
    if name == "parallel.balance":
        return "" if value == "even" else f"balance {value}" if value == "measured" else printable(value)
    if name == "training.carry":
        return "states carried" if value else "states not carried"
    if isinstance(value, str):
        return shorten(printable(value), 32)
    shown = f"{value:g}" if isinstance(value, float) else printable(value)
    return f"{key}={shown}"


def common_problem(cases: Sequence[Case]) -> str:
    """Say what all these cases have in common of the problem; empty where there is nothing."""
    if not cases:
        return ""
    first, *rest = [_main_tokens(case) for case in cases]
    return join_tokens({k: v for k, v in first.items() if all(other.get(k) == v for other in rest)})


def distinctions(cases: Sequence[Case], ignore: Sequence[str] = ()) -> list[str]:
    """Say for each case what sets it apart from the others: ``B128``; empty where nothing does.

    Parameters
    ----------
    cases : sequence of Case
    ignore : sequence of str
        Keys that the place the text stands in already shows, e.g. ``problem.batch``.

    Returns
    -------
    list of str
        One a case, in order.
    """
    tokens = [_all_tokens(case) for case in cases]
    keys = {key: None for table in tokens for key in table}
    varying = [k for k in keys if k not in ignore and len({t.get(k) or _plain_token(k) for t in tokens}) > 1]
    # A kernel that follows from the backend says nothing the label does not.
    if "kernel" in varying and len({c.backend for c in cases}) == len({(c.backend, c.kernel) for c in cases}):
        varying.remove("kernel")
    # Nor does the transport of all cases that have one, beside others.
    if "machine.transport" in varying and len({t.get("machine.transport") for t in tokens} - {None}) == 1:
        varying.remove("machine.transport")
    if "model.hidden" in varying and all(not _section(c, "model").get("embed") for c in cases):
        varying.remove("model.embed")
    return [join_tokens({k: t[k] for k in varying if t.get(k)}) for t in tokens]


def _plain_token(key: str) -> str:
    """What a case that does not mention a key is taken to say."""
    return _token(key, key.partition(".")[2], PLAIN_VALUES[key]) if key in PLAIN_VALUES else ""


def notable_settings(case: Case) -> str:
    """Name the settings of a case that are not in its problem's short form and not at their plain value."""
    tokens, main = _all_tokens(case), _main_tokens(case)
    plain = {k for k in tokens if k in PLAIN_VALUES and _value(case, k) == PLAIN_VALUES[k]}
    return join_tokens({k: v for k, v in tokens.items() if k not in main and k not in plain and k != "kernel"})


def _value(case: Case, key: str) -> object:
    section, _, name = key.partition(".")
    return _section(case, section).get(name)


def _section(case: Case, name: str) -> dict[str, Any]:
    section = case.spec.get(name, {})
    return section if isinstance(section, dict) else {}


def threads_of(case: Case) -> int:
    """BLAS threads of a rank."""
    threads = _section(case, "machine").get("threads", 1)
    return threads if isinstance(threads, int) else 1


def case_name(case: Case) -> str:
    """Return the label of a case, marked where no machine ran it, or where its numbers are not those of the chain."""
    marks = [*(["simulated"] if case.simulated else []), *shortfalls(case)[:1]]
    return printable(case.label) + (f" ({', '.join(marks)})" if marks else "")


def case_names(cases: Sequence[Case]) -> list[str]:
    """Name cases that stand beside one another: each by its label and by what sets it apart from the others."""
    return [" · ".join(filter(None, pair)) for pair in zip(map(case_name, cases), distinctions(cases), strict=True)]


def shortfalls(case: Case) -> list[str]:
    """Say what sets the numbers of a case apart from those of the chain, worst first; empty for most."""
    found = ["approximate"] if case.verdict.status == "APPROXIMATE" else []
    if case.certificate is not None and case.method in CORRECTED:
        found += ["unconverged"] if case.certificate.n_unconverged else []
        found += ["gradient truncated"] if case.certificate.n_truncated else []
    return found


def mode_of(case: Case) -> str:
    """``train``, ``gradient``, ``forward`` or ``target``."""
    return str(_section(case, "training").get("mode", ""))


def sample_steps(case: Case) -> int:
    """Steps of training that a repetition is the mean over: those between two meetings of all ranks, or evaluations."""
    if case.learning is not None:
        return int(case.spec["training"].get("eval_every", 1))
    return leg_steps(case.split.data_method, int(case.spec["parallel"].get("sync_every", 1)))


def loss_unit(case: Case) -> str:
    """Return the unit of the loss; empty where the workload alone defines it."""
    return registry.loss_unit(str(_section(case, "problem").get("workload", "")))


def worst_check(verdict: Verdict) -> Check | None:
    """Return the check nearest to, or furthest beyond, its tolerance; None where none was recorded."""

    def share(check: Check) -> float:
        if check.error != check.error:
            return float("inf")
        return check.error / check.tolerance if check.tolerance > 0 else float(check.error > 0) * float("inf")

    return max(verdict.checks, key=share, default=None)


def command_line(record: Record) -> str:
    """Return the command line as one would type it again: the launcher's, where it is known.

    The launcher's ends in how Python was told to start hpcrnn, for which ``hpcrnn`` stands here. Where it started
    something else, a script that in turn started hpcrnn, what that ran follows as a comment.
    """
    if not record.argv:
        return ""
    own = shlex.join(record.argv)
    command = section(record, "launcher").get("command")
    if not isinstance(command, list | tuple) or not command:
        return printable(own)
    words, flags = [str(word) for word in command], list(record.argv[1:])
    words[0] = PurePath(words[0]).name
    n_before = len(words) - len(flags)
    program = _program(words[:n_before]) if words[max(n_before, 0) :] == flags else []
    if not program:
        return printable(f"{shlex.join(words)}  # {own}")
    return printable(f"{shlex.join(words[: n_before - len(program)])} {own}")


def _program(words: Sequence[str]) -> list[str]:
    """Return ``python -m hpcrnn``, ``python .../hpcrnn`` or ``.../hpcrnn`` from the end of words; empty for another."""
    if words[-2:] == ["-m", "hpcrnn"]:
        n = 2
    elif words and PurePath(words[-1]).name == "hpcrnn":
        n = 1
    else:
        return []
    interpreter = words[-n - 1 : -n]
    return list(words[-n - bool(interpreter and PurePath(interpreter[0]).name.startswith("python")) :])


def host_dicts(record: Record) -> list[dict[str, Any]]:
    """Return the entries of ``environment.hosts``, one a rank; empty where there are none."""
    hosts = record.environment.get("hosts", [])
    return [h for h in hosts if isinstance(h, dict)] if isinstance(hosts, list | tuple) else []


def host_names(record: Record) -> dict[str, int]:
    """Return each host's name with how many ranks ran there, in rank order."""
    counts: dict[str, int] = {}
    for host in host_dicts(record):
        name = printable(first_of(host, "hostname", "host", "name", "node") or "unnamed host")
        counts[name] = counts.get(name, 0) + 1
    return counts


def hosts_text(record: Record) -> str:
    """Name the hosts: ``node1 (2 ranks), node2 (2 ranks)``; long lists are counted."""
    return _list_hosts({name: plural(count, "rank") for name, count in host_names(record).items()})


def all_hosts_text(records: Sequence[Record]) -> str:
    """Name the hosts of several records, each with the most ranks a record has there."""
    counts: dict[str, set[int]] = {}
    for record in records:
        for name, count in host_names(record).items():
            counts.setdefault(name, set()).add(count)
    return _list_hosts(
        {name: ("up to " if len(seen) > 1 else "") + plural(max(seen), "rank") for name, seen in counts.items()}
    )


def _list_hosts(ranks: Mapping[str, str], most: int = 4) -> str:
    if not ranks:
        return "host not recorded"
    names = [f"{name} ({text})" for name, text in ranks.items()]
    rest = f" and {plural(len(names) - most, 'host')} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest


def cpu_text(record: Record) -> str:
    """Name the distinct CPUs of the hosts; empty where they were not recorded."""
    keys = ("cpu_model", "cpu", "model_name", "processor")
    names = {printable(first_of(host, *keys) or "unknown"): None for host in host_dicts(record)}
    return ", ".join(name for name in names if name != "unknown")


def mpi_text(record: Record) -> str:
    """Name the MPI library."""
    mpi = section(record, "mpi")
    name = first_of(mpi, "library", "library_version", "vendor", "name", "implementation")
    # MPICH's library string runs over a dozen lines of configure flags; its first says which it is.
    text = str(name).strip().splitlines()[0] if name and str(name).strip() else "MPI library not recorded"
    return shorten(printable(text), 60)


def git_text(record: Record) -> str:
    """Name the git commit, and say whether the tree was modified."""
    git = section(record, "git")
    commit = first_of(git, "commit", "sha", "revision")
    if not commit or commit == "unknown":
        return "git commit not recorded"
    # Whether the tree was modified may itself be unknown: only a plain yes is one.
    return f"git {printable(commit)[:12]}" + (" (modified tree)" if git.get("dirty") is True else "")


def section(record: Record, name: str) -> dict[str, Any]:
    """Return a section of the environment; empty where it is missing or not a dict."""
    value = record.environment.get(name, {})
    return value if isinstance(value, dict) else {}


def first_of(mapping: Mapping[str, Any], *keys: str) -> Any:
    """Return the first value under these keys that is there and not empty."""
    return next((mapping[k] for k in keys if mapping.get(k) not in (None, "", [])), None)


def source_name(record: Record) -> str:
    """Return the file a record came from, or its identity where it was never in a file."""
    name = printable(record.source) if record.source else f"record {printable(record.uuid)[:8]}"
    return f"{name} · from {printable(record.origin)}" if record.origin else name


def short_source(record: Record) -> str:
    """Return the last part of :func:`source_name`, for captions; of a merged run the file it came from."""
    return shorten((printable(record.origin) or source_name(record)).rsplit("/", 1)[-1], 40)


def flatten(value: object, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Turn nested plain values into rows of dotted key and text; empty values are left out.

    A number whose key ends in a unit is written with it: ``memory_bytes`` as GiB, ``resolution_s`` as ns.
    """
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from flatten(inner, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(value, list | tuple) and any(isinstance(v, Mapping | list | tuple) for v in value):
        for index, inner in enumerate(value):
            yield from flatten(inner, f"{prefix}[{index}]")
    else:
        values = value if isinstance(value, list | tuple) else [value]
        text = ", ".join(_with_its_unit(prefix, v) for v in values)
        if value is not None and text:
            yield prefix, text


def _with_its_unit(key: str, value: object) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        for suffix, write in (("_bytes", format_bytes), ("_hz", format_hertz), ("_s", format_seconds)):
            if key.endswith(suffix):
                return write(float(value))
        return f"{value:.6g}" if isinstance(value, float) else str(value)
    return printable(value)
