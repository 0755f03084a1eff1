"""The stand-in's part of CuPy's bindings: see ``cupy``."""
