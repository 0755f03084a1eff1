"""The backend ``cupy``: the same tasks on kernels of our own, on one GPU a rank."""
