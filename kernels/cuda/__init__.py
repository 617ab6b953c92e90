"""Kernels for NVIDIA's GPUs.

How an operation becomes a launch:

    kernels     registers a kernel of target "cuda" for each operation that has one: an encoder, which makes launches
                of arrays (``rows`` and its neighbours, a family each)
    encoding    what encoders share; what one declines, the kernel of target "cupy" does
    launch      a launch, and how one is made on a device
    products    matrix products in tiles; ``blas`` those of cuBLAS, ``choice`` which of the two, ``precision`` of either
    chains      kernels of elementwise expressions, written by ``translation``; ``walks``, over which axes
    code        the sources, a family each, and ``tinynet.cuh``, what they share

CuPy is needed for launches alone: encoders look at the shape, type, strides and address of arrays, so that those of
NumPy arrays give launches as well, which the tests run on a processor.
"""
