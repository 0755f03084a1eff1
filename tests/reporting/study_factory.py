"""A synthetic study of time-parallel methods, with every table the report draws."""

from __future__ import annotations

import math

import numpy as np

from hpcrnn.records.study import StudyRecord, StudyTable


def make_table(name, rows, units=None, **facts):
    """Make a table of rows, each a dict."""
    columns = {key: np.array([row[key] for row in rows]) for key in rows[0]}
    return StudyTable(name, columns, units or {}, facts)


def speedup_table():
    """Two cells, three initialisations; one in which nothing meets."""
    rows = []
    lengths = {
        ("lstm", "default"): 30,
        ("gru", "default"): 24,
        ("lstm", "forget bias +1"): 82,
        ("lstm", "chrono"): None,
    }
    random = np.random.default_rng(0)
    for (cell, init), m in lengths.items():
        for P in (2, 4, 8, 16, 32, 64):
            for direction in ("forward", "backward"):
                T = 4096
                steps = T if m is None else math.ceil((T / P + m) * (1 + 0.06 * random.random()))
                rows.append(
                    {
                        "cell": cell, "init": init, "direction": direction, "segments": P, "T": T,
                        "meeting": m or math.nan, "critical_steps": steps, "speedup_steps": T / steps,
                    }
                )  # fmt: skip
    return make_table("speedup", rows, {"meeting": "time steps"}, hidden=128, tolerance=1e-6)


def training_table(workloads=("stdlib", "adding"), cells=("lstm", "gru")):
    """Meeting lengths that grow; on the second workload near chaos at the end."""
    rows = []
    for k, workload in enumerate(workloads):
        for j, cell in enumerate(cells):
            for step in range(0, 201, 10):
                grown = 30 * (1 + (0.4 + 2.5 * k) * step / 200) * (1 + 0.2 * j)
                rows.append(
                    {
                        "workload": workload, "cell": cell, "step": step, "meeting_forward": grown,
                        "meeting_backward": grown * 1.07, "rounds_forward": 2 + (grown > 64), "rounds_backward": 2,
                        "loss": (5.5 if k == 0 else 0.17) * math.exp(-step / 90), "gradient_error": 4.9e-7,
                        "lyapunov": -0.3 + (0.12 + 0.2 * k) * step / 200, "serial_error": 4.3e-7,
                    }
                )  # fmt: skip
    return make_table("training", rows, {"meeting_forward": "time steps"}, hidden=128, seq=2048, segments=16)


def tolerance_table():
    """Errors that fall with the tolerance down to that of the serial run."""
    rows = []
    for cell, floor in (("lstm", 4.3e-7), ("gru", 2.1e-7)):
        for tolerance in (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 5e-7):
            error = math.hypot(0.4 * tolerance, 1.1 * floor)
            steps = 256 - round(14 * math.log10(tolerance))
            rows.append(
                {
                    "cell": cell, "tolerance": tolerance, "gradient_error": error, "serial_error": floor,
                    "critical_steps": steps,
                }
            )  # fmt: skip
    return make_table("tolerance", rows, T=4096, segments=16, hidden=128)


def chaos_table():
    """Rounds over forget bias and gain; large gains are chaotic."""
    rows = []
    for axis, values, cells in (
        ("forget_bias", (0.0, 1.0, 2.0, 3.0, 5.0), ("lstm",)),
        ("gain", (0.5, 1.0, 1.25, 1.5, 2.0, 3.0), ("elman", "lstm")),
    ):
        for cell in cells:
            for method in ("picard", "gateprod"):
                for value in values:
                    for segment in (32, 64, 128, 256, 512):
                        P = 2048 // segment
                        memory = 25 * (4.0**value if axis == "forget_bias" else 1 / max(1.45 - value, 1e-3))
                        rounds = min(P, 1 + math.ceil(memory / segment))
                        if method == "gateprod" and axis == "forget_bias":
                            rounds = min(rounds, 5)
                        rows.append(
                            {
                                "axis": axis, "forget_bias": value if axis == "forget_bias" else math.nan,
                                "gain": value if axis == "gain" else math.nan, "segment_steps": segment,
                                "rounds": rounds, "max_rounds": P, "cell": cell, "method": method,
                                "lyapunov": -1 / memory if axis == "forget_bias" or value < 1.5 else 0.1,
                            }
                        )  # fmt: skip
    return make_table("chaos", rows, T=2048, hidden=128)


def make_study(*tables):
    """Make a study of these tables; of all where none is given."""
    tables = tables or (speedup_table(), training_table(), tolerance_table(), chaos_table())
    return StudyRecord("2026-01-01T00:00:00+00:00", {}, tables)
