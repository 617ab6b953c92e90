"""Kernels for the host's processor, in NumPy's own functions: none of them allocates an array.

``lowering`` and ``blocks`` derive kernels from expressions; ``cutting`` has what all share; the rest is by hand.
"""
