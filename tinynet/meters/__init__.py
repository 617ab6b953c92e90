"""Counters: what a process uses of the machine, as the system counts it.

    memory      resident bytes and their peak, limits and pressure of control groups
    processor   processor seconds
    energy      Meter: joules, measured or modelled, and which of the two
    rapl        the processor's own energy counters
    nvml        the energy counters of NVIDIA's GPUs
    models      energy by arithmetic, with its uncertainty, where nothing counts it
    units       bytes, seconds and joules as people write them
    groups      files of the control groups of this process

Only counting is done here: nothing here knows of tensors, models or training, and nothing is loaded with ``tinynet``.
What is done about a number stands in ``train`` (budgets) and ``resources`` (monitoring, advice).
"""
