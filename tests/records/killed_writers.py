"""Writers that are killed: a program, for a process with threads should not fork.

``killed_writers.py FOLDER N SEED`` forks writers one after another. Each writes record after record to
``FOLDER/k/n.h5`` and says a byte for every line of the writing code it comes to. N of them are killed when a random
number of bytes was read, and die wherever they are by then; after them, one for each line of the first record and some
more waits at that line until it is killed. Printed is one line a writer: how many records it had said it was done with.
"""

import os
import random
import signal
import sys
from pathlib import Path

from record_samples import make_case, make_record

from hpcrnn.records import hdf5, whole_file

RECORD = make_record(make_case(1, 2, 1))
_CONTENT = hdf5.encode_sealed(lambda file: hdf5.fill(file, RECORD))
hdf5.encode_sealed = lambda _: (
    _CONTENT
)  # what is made in memory no kill can spoil, and making it takes most of the time

LINE, DONE = b".", b"!"
LINES_OF_A_RECORD = 100
"""Lines traced a record, about: random kills fall on the first three."""
ENDLESS = 60_000
"""Lines, more than a writer comes to, and no more bytes than a pipe holds."""


def write_until_killed(folder, says, may_go_on):
    def trace(frame, event, _):
        # A generator has a line for each character of a path: how long that is must not matter.
        if frame.f_code.co_filename != whole_file.__file__ or frame.f_code.co_name == "<genexpr>":
            return None
        os.write(says, LINE)
        os.read(may_go_on, 1)
        return trace

    sys.settrace(trace)
    for n in range(10**6):
        # In turn over nothing, and over the file that was there.
        hdf5.write_record(RECORD, folder / f"{n // 2}.h5", overwrite=bool(n % 2))
        os.write(says, DONE)


def killed_writer(folder, n_lines, *, waits):
    """Fork a writer, kill it after so many lines, and return how many records it was done with."""
    hears, says = os.pipe()
    may_go_on, lets_go_on = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            write_until_killed(folder, says, may_go_on)
        finally:
            os._exit(1)
    os.close(says)
    os.write(lets_go_on, bytes(n_lines - 1 if waits else ENDLESS))
    said = b""
    while said.count(LINE) < n_lines:
        said += os.read(hears, n_lines) or sys.exit("the writer ended by itself")
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    while rest := os.read(hears, 65536):
        said += rest
    for descriptor in (hears, may_go_on, lets_go_on):
        os.close(descriptor)
    return said.count(DONE)


def main(folder, n_writers, seed):
    chance = random.Random(seed)  # noqa: S311 - which moments are tried, not a secret
    moments = [(chance.randint(1, 3 * LINES_OF_A_RECORD), False) for _ in range(n_writers)]
    moments += [(line, True) for line in range(1, LINES_OF_A_RECORD + 11)]
    for k, (n_lines, waits) in enumerate(moments):
        print(killed_writer(folder / str(k), n_lines, waits=waits), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
