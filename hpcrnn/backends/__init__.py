"""Where the tasks run: a narrow protocol (:mod:`~hpcrnn.backends.base`) and its implementations."""
