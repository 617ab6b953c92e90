"""Prefetched: the items of an iterator, made by a thread some items ahead of who takes them.

It knows nothing of data sets. The thread ends with the items, when :meth:`Prefetched.close` is called, when the object
is no longer in use, and when the interpreter exits, whichever comes first.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Iterator

__all__ = ["Prefetched"]


class _Shared:
    """What the thread and the consumer both hold. The thread must not hold the consumer's object, which could then
    never be out of use."""

    def __init__(self, items: Iterator, limit: int):
        self.items, self.limit = items, limit
        self.ready: deque = deque()
        self.ended = self.unwanted = False
        self.error: BaseException | None = None
        # The lock of a Condition can be taken again by its holder: a finalizer may run while the thread holds it.
        self.changed = threading.Condition()

    def fill(self) -> None:
        """The thread: makes an item, waits for room, hands it over."""
        try:
            for item in self.items:
                with self.changed:
                    self.changed.wait_for(lambda: self.unwanted or len(self.ready) < self.limit)
                    if self.unwanted:
                        return
                    self.ready.append(item)
                    self.changed.notify_all()
                del item  # else it would live until the next one is made
        except BaseException as error:  # whatever it is, it is for the consumer
            self.error = error
        finally:
            with self.changed:
                self.ended = True
                self.changed.notify_all()


class Prefetched:
    """Iterates over ``items``, of which a thread makes up to ``limit`` ahead; so many are held, and the one in its
    hands.

    An error that they raise is raised here, in place of the item that could not be made.
    """

    def __init__(self, items: Iterator, limit: int):
        shared = self._shared = _Shared(items, limit)
        thread = threading.Thread(target=shared.fill, name="tinynet-prefetch", daemon=True)
        thread.start()
        self.close = weakref.finalize(self, _end, shared, thread)

    def __iter__(self) -> Prefetched:
        return self

    def __next__(self):
        shared = self._shared
        with shared.changed:
            shared.changed.wait_for(lambda: shared.ready or shared.ended)
            if shared.ready:
                shared.changed.notify_all()
                return shared.ready.popleft()
        self.close()
        if shared.error is not None:
            try:
                raise shared.error
            finally:
                shared.error = None
        raise StopIteration


def _end(shared: _Shared, thread: threading.Thread) -> None:
    with shared.changed:
        shared.unwanted = True
        shared.ready.clear()
        shared.changed.notify_all()
    if thread is not threading.current_thread():  # on which a collection may have found the object out of use
        thread.join()
