"""The backend ``numpy``: the cells on arrays of the host."""
