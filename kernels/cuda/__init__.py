"""Kernels for NVIDIA GPUs. CuPy arrays run on the kernels derived from expressions and on the reference."""
