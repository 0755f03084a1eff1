"""Certificates and choices are made on ranks of MPI, whose modules are imported here without starting it."""

import sys

if "mpi4py.MPI" not in sys.modules:
    import mpi4py

    mpi4py.rc.initialize = False
