"""The scripts that put PyTorch beside us: started as a user would, or with a peer that was tampered with."""

import importlib.util
from dataclasses import dataclass

import pytest
from launching import case_script, mpirun

HAS_TORCH = importlib.util.find_spec("torch") is not None
needs_torch = pytest.mark.skipif(not HAS_TORCH, reason="torch is not installed")
without_torch = pytest.mark.skipif(HAS_TORCH, reason="torch is installed")

PATCHED = """
import sys
from mpi4py import MPI
from hpcrnn.benchmarks import {script}
from hpcrnn.backends.torch.{room} import {peer}
{patch}
sys.exit({script}.on_ranks({script}.main))
"""


@dataclass(frozen=True)
class PeerScript:
    """One of them, and flags that make it small."""

    script: str
    room: str
    peer: str
    tiny: tuple[str, ...]

    def run(self, n_ranks, *flags, cwd):
        return mpirun(n_ranks, "-m", f"hpcrnn.benchmarks.{self.script}", *self.tiny, *flags, cwd=cwd)

    def patched(self, patch, cwd, **options):
        """Run it on two ranks after this code."""
        text = PATCHED.format(script=self.script, room=self.room, peer=self.peer, patch=patch)
        return mpirun(2, case_script(cwd, text), *self.tiny, cwd=cwd, **options)

    def assert_a_failing_rank_ends_all(self, cwd):
        patch = (
            "def broken(self):\n"
            "    if MPI.COMM_WORLD.rank == 1: raise RuntimeError('the disk is on fire')\n"
            "    right(self)\n"
            f"right, {self.peer}.step = {self.peer}.step, broken"
        )
        # The timeout is the assertion: rank 0 waits in gloo for what never comes.
        ended = self.patched(patch, cwd, timeout=45)
        assert ended.code != 0
        assert "RuntimeError: the disk is on fire" in ended.err

    def assert_refused(self, n_ranks, flags, words, cwd):
        ended = self.run(n_ranks, *flags, cwd=cwd)
        assert ended.code != 0
        assert len(ended.error_lines) == 1, ended.err
        assert words in ended.error_lines[0]
        assert "Traceback" not in ended.err

    def assert_says_how_to_get_torch(self, cwd):
        ended = self.run(2, cwd=cwd)
        assert ended.code == 1
        assert len(ended.error_lines) == 1
        assert "pip install torch" in ended.error_lines[0]


def assert_differs(ended):
    """It was found to compute something else, in one line."""
    assert ended.code == 2, ended.err
    assert len(ended.error_lines) == 1, ended.err
    assert "error: torch " in ended.error_lines[0]
    assert "differs from the serial run by " in ended.error_lines[0]
