"""hpcrnn as a ReFrame test: the sanity check is the suite's own verdict, the performance its medians.

    reframe -c jobs/reframe_hpcrnn.py -r --performance-report
    reframe -C site_settings.py -c jobs/reframe_hpcrnn.py -r -S num_ranks=8 -S references=jobs/my_references.json

ReFrame starts the ranks with the launcher of its partition. References are kept as ReFrame has it, a value with the
fraction it may be lower or higher by, for each system and partition.
"""

import json

import reframe as rfm
import reframe.utility.sanity as sn
from reframe.core.builtins import parameter, performance_function, run_before, sanity_function, variable


@rfm.simple_test
class HpcrnnTest(rfm.RunOnlyRegressionTest):
    """One problem, serial and data-parallel on all ranks, in one interleaved run."""

    cell = parameter(["lstm", "gru"])
    num_ranks = variable(int, value=2)
    hidden = variable(int, value=256)
    max_time = variable(int, value=20)
    references = variable(str, value="")

    descr = "recurrent network: verified, then timed"
    valid_systems = ["*"]
    valid_prog_environs = ["*"]
    executable = "hpcrnn"
    tags = {"hpcrnn", "acceptance"}

    @run_before("run")
    def _set_the_problem(self):
        self.num_tasks = self.num_ranks
        self.env_vars = {"OMP_NUM_THREADS": 1}
        self.executable_opts = [
            "run", "--cell", self.cell, "--hidden", str(self.hidden), "--max-time", str(self.max_time),
            "--expect-ranks", str(self.num_ranks), "--out", "result.h5", "--overwrite",
        ]  # fmt: skip
        self.postrun_cmds = ["hpcrnn export result.h5 --to json -o result.json"]

    @run_before("performance")
    def _set_the_references(self):
        if self.references:
            with open(
                self.references, encoding="utf-8"
            ) as stream:  # {"system:partition": {"step_s": [0.2, null, 0.1]}}
                kept = json.load(stream)
            self.reference = {
                where: {name: (*values, unit_of(name)) for name, values in metrics.items()}
                for where, metrics in kept.items()
            }

    @sanity_function
    def _every_case_is_valid(self):
        verdicts = [case["verdict"]["status"] for case in self._cases()]
        return sn.all([sn.assert_ge(len(verdicts), 1), *(sn.assert_eq(verdict, "VALID") for verdict in verdicts)])

    @performance_function("s")
    def step_s(self):
        """Median step on all ranks."""
        return self._widest()["step_s"]["median"]

    @performance_function("x")
    def speedup(self):
        """Over the best serial run of the same job."""
        return self._widest()["base"]["speedup"]["median"]

    def _cases(self):
        with open("result.json", encoding="utf-8") as stream:
            return json.load(stream)["cases"]

    def _widest(self):
        return max(self._cases(), key=lambda case: case["n_ranks"])


def unit_of(name):
    """Return the unit of a metric by its name."""
    return "s" if name.endswith("_s") else "x"
