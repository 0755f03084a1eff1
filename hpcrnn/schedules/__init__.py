"""What must happen, where, and in which order: pure descriptions, no arrays, no communicator.

::

    TaskGraph ──(placement, order)──> tasks of a rank ──(lowering)──> Program ──(validation)──> executor
"""
