"""Slurm: a sweep as jobs, from a site's settings to the collected report.

::

    SPEC.toml --(sweep)--> points --(by number of ranks)--> jobs --(site.toml)--> scripts --sbatch--> results --> report
"""
