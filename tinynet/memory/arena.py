"""``Arena``: an explicit allocator over one block of bytes of one backend.

Which bytes are free is kept in integers (``freelist``); here they become arrays, and come back when the last view of an
array has died. That is found by a weak reference whose callback only appends to a queue, because it may run on any
thread and at any moment, within the arena's own code too. The next call to the arena empties the queue.

What is true is said by one table, of those who hold memory; the free list can be made from it anew, and is if a call
is interrupted half-way (by Ctrl-C, say).
"""

from __future__ import annotations

import math
import threading
import weakref
from collections import deque
from collections.abc import Callable

from tinynet.backend import Backend, as_dtype, get_backend
from tinynet.backend.lending import begin, end
from tinynet.backend.lines import caller_frame, line_of
from tinynet.errors import ArenaError, ArgumentError
from tinynet.ops import Op, door
from tinynet.ops.spec import as_shape

from .freelist import Bump, FreeList
from .lifetimes import round_up
from .statistics import ArenaStats, held_by, no_room
from .units import as_bytes, show_bytes

_LAYOUTS = {"best-fit": FreeList, "bump": Bump}
_POISON = 0xFF  # a float of such bytes is not a number, an integer is -1 or the largest
_GUARD = 0xA5
_CALL = Op.__call__.__code__  # where an operation begins; its name is the tag


class Arena:
    """An allocator over one block: for eager tensors in a ``with`` block, or called by hand.

    Within ``with arena:`` every new tensor of this thread and of the arena's backend lies in it. Its bytes come back
    when the last tensor or array that shows them is gone. Tensors may outlive the ``with`` block and the arena: they
    keep the memory. Arrays without elements take no room. Threads may share an arena.

    Args:
        capacity: bytes, or text such as "64MB" or "64MiB"; rounded down to the backend's alignment.
        backend: where the block is; by default the backend in use.
        debug: surround arrays with guard bytes, and fill what is free with bytes that are not a number, so that writes
            outside of an array and reads after its end show themselves. Slower.
        layout: "best-fit", or "bump": a pointer that only moves up, and nothing comes back before ``reset``.

    Raises:
        ArgumentError: a capacity that is none, or an unknown layout.
        BackendError: the backend's library has no arrays within a block of bytes.
        ArenaError: there is not so much memory.

    Example:
        >>> with tn.Arena("64MB") as arena:
        ...     loss = model(x).sum()
        >>> print(arena.stats())
    """

    def __init__(
        self,
        capacity: int | str,
        backend: str | Backend | None = None,
        debug: bool = False,
        layout: str = "best-fit",
    ):
        nbytes = as_bytes(capacity, "Arena")
        self.backend, self.debug = get_backend(backend), bool(debug)
        self.capacity = nbytes // self.backend.alignment * self.backend.alignment
        if not self.capacity:
            raise ArgumentError("Arena", expected=f"{self.backend.alignment} bytes or more", got=repr(capacity))
        if layout not in _LAYOUTS:
            raise ArgumentError("Arena", expected=f"a layout of {' or '.join(_LAYOUTS)}", got=repr(layout))
        self.layout = layout
        try:
            self._block = self.backend.block(self.capacity)
        except MemoryError as error:
            raise ArenaError("Arena", expected=f"{self.capacity:,} bytes of memory", got=str(error)) from error
        self._begins = self.backend.address(self._block)
        self._margin = self.backend.alignment if debug else 0  # guard bytes on either side
        self._lock, self._at_work = threading.RLock(), False
        self._dead: deque[_Tenant] = deque()
        self._damages: list[str] = []
        self._peak = self._served = 0
        self._restore({})

    def __repr__(self) -> str:
        return f"<arena of {show_bytes(self.capacity)} on {self.backend.name}, {self.stats().used:,} bytes used>"

    def __enter__(self) -> Arena:
        begin(self)
        return self

    def __exit__(self, *_) -> None:
        end()

    def alloc(self, shape, dtype="float32", tag: str = ""):
        """An array of the backend, of unspecified content.

        Args:
            shape: an integer or a tuple.
            dtype: the element type.
            tag: under which name statistics count it.

        Raises:
            ArenaError: there is no room, or, in debug mode, somebody has written outside of an array before.
            ShapeError, DTypeError: not a shape, not an element type.
        """
        shape, dtype = as_shape("alloc", shape), as_dtype(dtype)
        if not math.prod(shape):
            return self.backend.carve(self._block, 0, shape, dtype)
        return self._alone(self._take, shape, dtype, tag, caller_frame()[0])

    def lend(self, shape: tuple[int, ...], dtype):
        """What a backend asks while the arena is in force: as ``alloc``, tagged with the operation at work.

        None for an array without elements, or of a shape that is none.
        """
        if math.prod(shape) <= 0:
            return None
        frame, call = caller_frame(_CALL)
        tag = "" if call is None else call.f_locals["self"].name
        return self._alone(self._take, shape, dtype, tag, frame)

    def free(self, x) -> None:
        """Takes the bytes of an array back at once. Whoever still looks at it sees what others write there.

        Args:
            x: an array or a tensor that lies in this arena, or any view of it: all views of its memory end with it.

        Raises:
            ArenaError: it does not lie here, or was freed before; nothing changes. In debug mode also if somebody has
                written outside of an array; ``x`` is freed then.
        """
        array = x.array if isinstance(x, door.Value) else x
        if not self.backend.owns(array):
            raise ArenaError("free", expected=f"an array of {self.backend.name} that lies in the arena", got=repr(x))
        if not math.prod(array.shape):
            return
        self._alone(self._free_now, array)

    def reset(self) -> None:
        """Takes all bytes back at once. Arrays that live still look at them; their end frees nothing any more.

        Raises:
            ArenaError: in debug mode, if somebody has written outside of an array. All is taken back then, too.
        """
        self._alone(self._reset_now)

    def check(self) -> None:
        """In debug mode, looks at every guard byte and at every free one. Each damage is reported once.

        Raises:
            ArenaError: somebody has written outside of an array, or into one that was freed.
        """
        self._alone(self._check_now)

    def stats(self) -> ArenaStats:
        """Sizes, the high-water mark, and who holds how much. It prints as a table."""
        return self._alone(self._stats_now)

    # ---- one at a time ----

    def _alone(self, work: Callable, *args):
        """Runs ``work`` while no other thread is in here, after what has died has been taken back."""
        with self._lock:
            if self._at_work:
                raise ArenaError("arena", expected="one call at a time in a thread", got="one from within a finalizer")
            self._at_work = True
            try:
                if self._dead:
                    self._settle()
                return work(*args)
            except ArenaError:
                raise
            except BaseException:  # who knows how far it came
                self._restore({at: tenant for at, tenant in self._tenants.items() if tenant() is not None})
                raise
            finally:
                self._at_work = False

    def _settle(self) -> None:
        """Takes back the bytes of all that has died since the last call."""
        while self._dead:
            tenant = self._dead.popleft()
            offset = getattr(tenant, "offset", None)  # None if its making was interrupted
            if self._tenants.get(offset) is tenant:  # not freed by hand before, nor by a reset
                self._take_back(tenant)

    def _take(self, shape, dtype, tag: str, frame):
        if self._damages:
            self._raise_damages()
        backend, margin, nbytes = self.backend, self._margin, math.prod(shape) * dtype.itemsize
        size = margin + round_up(nbytes + margin, backend.alignment)
        offset = self._free.take(size)
        if offset is None:
            raise self._no_room(size, f"{dtype}{list(shape)}", tag, frame)
        array, owner = backend.lend(self._block, offset + margin, shape, dtype)
        tenant = _Tenant(owner, self._dead.append)
        tenant.offset, tenant.size, tenant.nbytes, tenant.tag = offset, size, nbytes, tag
        tenant.place = None if frame is None else (frame.f_code, frame.f_lineno)
        if self.debug:
            self._fill(offset, offset + size, _GUARD)
            self._fill(offset + margin, offset + margin + nbytes, _POISON)
        self._tenants[offset] = tenant
        self._served += 1
        used = self.capacity - self._free.free
        if used > self._peak:
            self._peak = used
        return array

    def _take_back(self, tenant: _Tenant) -> None:
        del self._tenants[tenant.offset]
        if self.debug:
            self._inspect(tenant)
            self._fill(tenant.offset, tenant.offset + tenant.size, _POISON)
        self._free.give(tenant.offset, tenant.size)

    def _free_now(self, array) -> None:
        owner = self.backend.owner(array)
        at = self.backend.address(owner) - self._begins
        tenant = self._tenants.get(at - self._margin)
        if tenant is None or tenant() is not owner:
            inside = 0 <= at < self.capacity
            raise ArenaError(
                "free",
                expected="an array that lies in the arena",
                got="one that was freed before" if inside else "one with memory from elsewhere",
                mend="free each array once" if inside else "free it where it was made",
            )
        self._take_back(tenant)
        self._raise_damages()

    def _reset_now(self) -> None:
        if self.debug:
            for tenant in self._tenants.values():
                self._inspect(tenant)
        self._restore({})
        self._raise_damages()

    def _restore(self, tenants: dict[int, _Tenant]) -> None:
        """The state in which these hold memory, by offset, and nobody else does."""
        self._tenants = tenants  # a weak reference that is dropped here calls nobody any more
        self._free = _LAYOUTS[self.layout](self.capacity, [(at, tenant.size) for at, tenant in tenants.items()])
        if self.debug:
            for offset, size in self._free.holes():
                self._fill(offset, offset + size, _POISON)

    def _check_now(self) -> None:
        if self.debug:
            for tenant in self._tenants.values():
                self._inspect(tenant)
            for offset, size in self._free.holes():
                if not self._holds(offset, offset + size, _POISON):
                    self._damages.append(f"a write to freed memory, within {size:,} bytes at offset {offset:,}")
                    self._fill(offset, offset + size, _POISON)
        self._raise_damages()

    def _stats_now(self) -> ArenaStats:
        tenants, free, largest = self._tenants.values(), self._free.free, self._free.largest
        return ArenaStats(
            self.capacity, self.capacity - free, free, self._peak, largest, 1 - largest / free if free else 0.0,
            len(tenants), self._served, held_by((each.tag, each.size) for each in tenants),
            held_by((each.line, each.size) for each in tenants),
        )  # fmt: skip

    def _no_room(self, size: int, what: str, tag: str, frame) -> ArenaError:
        place = "" if frame is None else f", {line_of(frame.f_code, frame.f_lineno)}"
        where, what = f"arena of {show_bytes(self.capacity)}{place}", f"{what}{f' ({tag})' if tag else ''}"
        held = held_by((tenant.line, tenant.size) for tenant in self._tenants.values())
        return no_room(where, what, size, self._free.free, self._free.largest, held)

    # ---- debug mode ----

    def _fill(self, start: int, stop: int, byte: int) -> None:
        self._block[start:stop] = byte

    def _holds(self, start: int, stop: int, byte: int) -> bool:
        return bool((self._block[start:stop] == byte).all())

    def _inspect(self, tenant: _Tenant) -> None:
        """Notes damaged guards, to be raised by a call and not where arrays die; and mends them."""
        first = tenant.offset + self._margin
        last, stop = first + tenant.nbytes, tenant.offset + tenant.size
        for side, a, b in (("before", tenant.offset, first), ("after", last, stop)):
            if not self._holds(a, b, _GUARD):
                name = f"{tenant.tag!r}, " if tenant.tag else ""
                self._damages.append(
                    f"a write {side} the array of {tenant.nbytes:,} bytes ({name}made in {tenant.line})"
                )
                self._fill(a, b, _GUARD)

    def _raise_damages(self) -> None:
        if self._damages:
            damages, self._damages = self._damages, []
            more = f" and {len(damages) - 3} more" if len(damages) > 3 else ""
            raise ArenaError(
                "arena",
                expected="every write within a living array",
                got="; ".join(damages[:3]) + more,
                mend="look for a kernel or a view that goes beyond its array",
            )


class _Tenant(weakref.ref):
    """A piece of the block, as a weak reference to the array whose end gives it back.

    Attributes:
        offset, size: in bytes, of all that was taken.
        nbytes: of the array itself.
        tag: the name it goes by.
        place: code and line number of its making, or None.
    """

    __slots__ = ("nbytes", "offset", "place", "size", "tag")

    @property
    def line(self) -> str:
        return "?" if self.place is None else line_of(*self.place)
