"""The engine on an NVIDIA GPU: ``python -m bench gpu --check`` checks it there, then measures it beside its peers.

    checks      what a check is, and how groups of them are run: each in a process of its own
    kernels     every kernel against the reference in float64; the ladder of matrix products; cuBLAS
    executor    what a captured step holds: against eager mode, against itself without a graph, in memory
    bandwidth, products, training    the measurements, each beside what it has to be held against
    peers       the step of tinynet, PyTorch and JAX on the GPU
    worker      the process that does one of these things at a time
    pacing      the time that there is, and each section's share of it
    table       rows, what each has to reach, and the page

The process of the command itself makes no launch: a fault on the device ends one worker, and no more.
"""
