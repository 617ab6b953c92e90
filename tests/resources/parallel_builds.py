"""What the tests of parallel runs send to other processes: it must be in a file that can be imported."""

import importlib.util
import os
import time

import tinynet as tn


def classifier(seed):
    """A small network for the digits, with a dropout, which has a random stream of its own."""
    layers = tn.nn.Dense(64, 16, "relu"), tn.nn.Dropout(0.1), tn.nn.Dense(16, 10)
    model = tn.nn.Sequential(*layers)
    return model, tn.optim.Adam(model.parameters(), lr=0.01)


def line(seed):
    return tn.nn.Dense(2, 1), {"optimizer": "gd", "epochs": 3}


def bare(seed):
    return tn.nn.Dense(2, 1)


def failing(seed):
    if seed == 12:
        raise tn.errors.ArgumentError("build", expected="an even day", got=f"seed {seed}")
    return line(seed)


def nothing(seed):
    return None


def threads(_):
    """What this process computes with: of tinynet, of the environment, of BLAS where it can be asked."""
    time.sleep(0.3)  # so that another process gets the next task
    blas = []
    if importlib.util.find_spec("threadpoolctl") is not None:
        import threadpoolctl

        blas = [library["num_threads"] for library in threadpoolctl.threadpool_info()]
    return os.getpid(), tn.get_num_threads(), os.environ["OPENBLAS_NUM_THREADS"], blas


def sleep(path):
    """For a minute; the number of the process is in the file then."""
    with open(path, "w") as file:
        print(os.getpid(), file=file)
    time.sleep(60)


def leave(_):
    os._exit(3)
