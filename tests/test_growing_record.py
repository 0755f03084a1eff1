"""When what has been measured is written: seldom enough to cost nothing, by a clock that is not the machine's."""

from hypothesis import given, settings
from hypothesis import strategies as st

from hpcrnn.benchmarks.growing_record import LEAST_S, SPARSE, Pace


class Run:
    """A run of steps on a clock of its own; writes what is due after each."""

    def __init__(self):
        self.now, self.writes = 0.0, []
        self.pace = Pace(lambda: self.now)

    def step(self, step_s, write_s):
        self.now += step_s
        if self.pace.is_due():
            self.pace.pay_for(lambda: self.write(write_s))

    def write(self, write_s):
        self.writes.append((self.now, write_s))
        self.now += write_s


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(1e-3, 100), st.floats(0, 10)), max_size=200))
def test_writing_costs_a_two_hundredth_but_for_the_latest_write(steps):
    run = Run()
    for step_s, write_s in steps:
        run.step(step_s, write_s)
        spent = [took for _, took in run.writes]
        assert sum(spent[:-1]) <= run.now / SPARSE * (1 + 1e-9)
        assert all(start >= LEAST_S for start, _ in run.writes)


@settings(deadline=None)
@given(st.floats(1e-3, 1), st.floats(1e-4, 0.5))
def test_writes_that_take_alike_take_a_hundredth_at_the_most(step_s, write_s):
    run = Run()
    for _ in range(2000):
        run.step(step_s, write_s)
    if len(run.writes) > 1:
        assert sum(took for _, took in run.writes) <= run.now / 100


@settings(deadline=None)
@given(st.floats(0, 100), st.floats(0, 1))
def test_no_write_is_put_off_for_longer_than_that_takes(step_s, write_s):
    run = Run()
    for _ in range(50):
        before = len(run.writes)
        since = run.now - (sum(run.writes[-1]) if run.writes else 0.0)
        run.step(step_s, write_s)
        if since + step_s > max(LEAST_S, SPARSE * (write_s if before else 0.0)) * (1 + 1e-9):
            assert len(run.writes) == before + 1  # what was measured is kept in the first write that may be


def test_a_short_run_is_not_written_twice():
    run = Run()
    for _ in range(49):
        run.step(0.1, 0.01)
    assert run.writes == []
