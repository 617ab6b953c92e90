"""Kernels for NVIDIA's GPUs.

How an operation becomes a launch:

    kernels     registers a kernel of target "cuda" for each operation that has one: an encoder, which makes launches
                of arrays (``rows`` and its neighbours, a family each)
    encoding    what encoders share; what one declines, the kernel of target "cupy" does
    launch      a launch as data; ``device``, the GPU that it is made on; ``graphs``, many launches as one; ``feeding``,
                how arguments get there from the host
    products    matrix products in tiles; ``blas`` those of cuBLAS, on ``operands`` copied in bf16 or not; ``choice``,
                which of them
    chains      kernels of elementwise expressions, written by ``translation``; ``walks``, over which axes
    code        the sources, a family each, and ``tinynet.cuh``, what they share

CuPy is needed for launches alone: encoders look at the shape, type, strides and address of arrays, so that those of
NumPy arrays give launches as well, which the tests run on a processor.
"""
