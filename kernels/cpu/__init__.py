"""Kernels for the host's processor; ``ufuncs`` has those that NumPy itself provides."""
