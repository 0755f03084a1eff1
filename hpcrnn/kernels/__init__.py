"""CUDA C of the recurrent kernels, one file a kernel family, compiled at run time; and what each variant needs.

========================  ===========================================================================
``ptx.cuh``               inline PTX, one instruction a function: what a host runner replaces
``precision.cuh``         how numbers are stored and multiplied
``cells.cuh``             the pointwise mathematics of the cells
``persistent.cu``         tier 1: one cooperative launch a chunk of time, the weights on chip
``stepwise.cu``           tier 0: what stands beside the GEMM of each step
========================  ===========================================================================
"""
