"""Files that several processes share: written whole, and worked for by one process at a time.

What is in them, and where they lie, is not known here.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def write_whole(path: Path, content: bytes) -> bool:
    """Writes a file whole, or not at all; whether it could."""
    beside = path.with_suffix(f".{os.getpid()}-{os.urandom(4).hex()}")  # a folder may be shared by several machines
    try:
        beside.write_bytes(content)
        beside.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            beside.unlink()
        return False
    return True


@contextlib.contextmanager
def only_one(path: Path):
    """One process at a time. Where the system or the file system has no locks, or the folder is read-only, all of them.

    What is written is whole without that as well: a lock saves what others have done already.
    """
    with contextlib.ExitStack() as held:  # closing the file opens the lock
        with contextlib.suppress(ImportError, OSError):
            import fcntl

            fcntl.flock(held.enter_context(open(path, "w")), fcntl.LOCK_EX)
        yield
