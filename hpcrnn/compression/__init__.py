"""Gradients in fewer bytes: codecs that sum over ranks, and keep what they could not say for the next step.

``none`` is no codec; :func:`~hpcrnn.compression.codecs.parse_codec` reads the others by their names. A codec replaces
the sum of a block's gradients by one or two *stages* (:mod:`hpcrnn.compression.stages`): what a rank computes, a
collective, what it computes then. Nothing here knows MPI.

Every codec has *error feedback* (Seide et al. 2014; Karimireddy et al. 2019): what a message leaves out is added to the
next step's gradient, so that nothing is lost for good. Over any number of steps

    sum of what was applied + what is held back on all ranks = sum of the gradients of all ranks

to rounding, and all ranks apply the same bits.
"""
