"""What is trained on: real bytes, the user's series, the adding problem, random numbers.

A workload gives one global batch a step, the same on every machine for the same seed and step, and any
rows of it without the others: that is what lets ranks share a batch they never see whole.
"""

from hpcrnn.workloads.base import Batch, Interface, Loss, Workload
from hpcrnn.workloads.held_out import describe_held_out, open_held_out
from hpcrnn.workloads.registry import open_workload
from hpcrnn.workloads.sequences import SequenceWorkload

__all__ = [
    "Batch",
    "Interface",
    "Loss",
    "SequenceWorkload",
    "Workload",
    "describe_held_out",
    "open_held_out",
    "open_workload",
]
