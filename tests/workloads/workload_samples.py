"""What the tests of workloads share: specifications, files, and every workload there is."""

import numpy as np

from hpcrnn.spec import build_spec

# Pairwise distinct, so that no axis passes for another.
T, B, F, H = 7, 5, 3, 11


def make_spec(workload, **overrides):
    return build_spec({}, {"workload": workload, "batch": B, "seq": T, "hidden": H, **overrides})


def make_specs(folder):
    """Specifications of every workload, by kind; their files are made."""
    (folder / "corpus.txt").write_bytes(bytes(range(256)) * 3)
    np.save(folder / "series.npy", np.random.default_rng(0).normal(3, 2, (50, F)))
    return {
        "stdlib": make_spec("stdlib"),
        "file": make_spec(f"file:{folder / 'corpus.txt'}"),
        "series": make_spec(f"series:{folder / 'series.npy'}"),
        "adding": make_spec("adding"),
        "synthetic": make_spec("synthetic", features=F),
    }
