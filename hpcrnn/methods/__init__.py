"""Segments of time run at once, for cells whose steps depend on one another.

The time axis is cut into segments (:mod:`~hpcrnn.methods.folding`). Those of a rank lie beside each other as rows of
the batch; ranks hold consecutive ones (:mod:`~hpcrnn.methods.line`). A *pass* runs all segments of a layer from a guess
of the state they start from, forward or, for the gradient, backward; a re-run takes chosen rows again until they meet
what was there (:mod:`~hpcrnn.methods.passes`). A *solve* is a pass and the re-runs that follow until every segment
starts where its neighbour ended (:mod:`~hpcrnn.methods.solver`); how the starts are predicted is the method
(:mod:`~hpcrnn.methods.transfers`). The mathematics is explained in ``docs/methods.md``.

Nothing here knows MPI, a schedule or an engine.
"""
