"""Where the words of tables and of the control block are: what compiled code and Python agree on."""

from __future__ import annotations

# A table: how many instructions, and whether denormal numbers are taken as zero; then the instructions. Of each: the
# address of its function, its number of words, how many threads can share it, whether threads meet before it, whether
# the last thread has the first share; then its arguments.
COUNT, FLUSH, TABLE = 0, 1, 2
FUNCTION, LENGTH, LIMIT, MEET, REVERSED, HEADER = 0, 1, 2, 3, 4, 5

# The control block of a pool. Words that are written by different threads stand in cache lines of their own.
LINE = 8
EPOCH, FINISHED = 0, 1  # how many tables were handed out, and how many of them are done
WAITED = 2  # set by a thread that has waited at a barrier for so long that it lets others onto its core
ARRIVED, GENERATION, GIVEN = LINE, 2 * LINE, 3 * LINE
WORKERS = 4 * LINE  # see ``worker``
SEEN, ASLEEP = 0, 1


def worker(index: int) -> int:
    """Where the line of a worker starts."""
    return WORKERS + LINE * index


def control_words(threads: int) -> int:
    """int64 words of the control block, which is zero at the start and aligned to 64 bytes."""
    return worker(threads)
