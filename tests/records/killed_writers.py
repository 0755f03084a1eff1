"""Writers that are killed: a program, for a process with threads should not fork.

``killed_writers.py FOLDER N SEED`` forks N writers one after another. Each writes record after record to
``FOLDER/k/n.h5`` and says a byte for every line of the writing code it comes to; it is killed when a random number
of bytes was read. Printed is one line a writer: how many records it had said it was done with.
"""

import os
import random
import signal
import sys
from pathlib import Path

import h5py  # noqa: F401 - once for all, not in every writer
from record_samples import make_case, make_record

from hpcrnn.records import hdf5, whole_file

LINE, DONE = b".", b"!"
LINES_OF_A_RECORD = 130
"""Lines traced a record, about: kills fall on the first four."""


def write_until_killed(folder, pipe):
    traced = {hdf5.__file__, whole_file.__file__}

    def trace(frame, event, _):
        # A generator has a line for each character of a path: how long that is must not matter.
        if frame.f_code.co_filename not in traced or frame.f_code.co_name == "<genexpr>":
            return None
        os.write(pipe, LINE)
        return trace

    record = make_record(make_case(1, 2, 1))
    sys.settrace(trace)
    for n in range(10**6):
        # In turn over nothing, and over the file that was there.
        hdf5.write_record(record, folder / f"{n // 2}.h5", overwrite=bool(n % 2))
        os.write(pipe, DONE)


def killed_writer(folder, n_bytes):
    """Fork a writer, kill it after so many bytes, and return how many records it was done with."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            write_until_killed(folder, writing)
        finally:
            os._exit(1)
    os.close(writing)
    said = b""
    while len(said) < n_bytes:
        said += os.read(reading, n_bytes - len(said)) or sys.exit("the writer ended by itself")
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    while rest := os.read(reading, 65536):
        said += rest
    os.close(reading)
    return said.count(DONE)


def main(folder, n_writers, seed):
    chance = random.Random(seed)  # noqa: S311 - which moments are tried, not a secret
    for k in range(n_writers):
        print(killed_writer(folder / str(k), chance.randint(1, 4 * LINES_OF_A_RECORD)), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
