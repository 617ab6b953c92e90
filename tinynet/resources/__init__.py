"""What a running job has to work with: the machine, the libraries beside it, and what slows them down.

    facts       how facts are gathered: probes, one guard around them, and "unknown" as an answer
    machine     the machine as the system describes it: processor, caches, limits, memory, energy counters
    software    what is installed and chosen: BLAS, executor, threads, compiled kernels, GPU, extras
    measure     what can only be measured: the peak of a core, the bandwidth of memory, the speed of BLAS
    advice      what in these facts costs speed, and how to mend it

``python -m tinynet doctor`` prints all of it. Nothing here changes anything, and nothing here is needed to train.
"""
