"""Errors of the compiler."""


class CompileException(Exception):  # noqa: N818 - CuPy's name
    """A kernel cannot be compiled; the compiler's own words."""
