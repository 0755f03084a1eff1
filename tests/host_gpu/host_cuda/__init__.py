"""CUDA C executed on the host: compiled as C++ (``build``) beside what stands in for the GPU (``host_ptx.h``)."""
