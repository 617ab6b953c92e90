"""Which backend is in use: for the process, for a block, by name.

Backends are made on first use, so that importing tinynet imports no GPU library. A block's choice is thread-local:
two threads may work on two backends.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from tinynet.errors import BackendError

from .arrays import Backend, NumPyBackend
from .gpu import CuPyBackend

_factories: dict[str, Callable[[], Backend]] = {"numpy": NumPyBackend, "cupy": CuPyBackend}
_made: dict[str, Backend] = {}
_making = threading.Lock()
_process: Backend | None = None


class _Block(threading.local):
    chosen: Backend | None = None


_block = _Block()


def register_backend(name: str, factory: Callable[[], Backend]) -> None:
    """Makes ``name`` known to ``use_backend``; ``factory()`` is called on first use.

    Any array-API module will do: ``register_backend("strict", lambda: Backend("strict", array_api_strict))``.
    """
    with _making:
        _factories[name] = factory
        _made.pop(name, None)


def available_backends() -> tuple[str, ...]:
    """Names that ``use_backend`` knows. Whether one works here (a GPU present, say) shows when it is used."""
    return tuple(_factories)


def get_backend(backend: str | Backend | None = None) -> Backend:
    """The backend of that name, or the one in use.

    Raises:
        BackendError: unknown name, or the backend cannot work here.
        MissingExtraError: its library is not installed.
    """
    global _process
    if backend is None:
        if _block.chosen is not None:
            return _block.chosen
        if _process is None:
            _process = get_backend(os.environ.get("TINYNET_BACKEND") or "numpy")
        return _process
    if isinstance(backend, Backend):
        return backend
    found = _made.get(backend)
    if found is None:
        if backend not in _factories:
            raise BackendError("backend", expected=f"one of {', '.join(_factories)}", got=repr(backend))
        with _making:
            found = _made.get(backend) or _made.setdefault(backend, _factories[backend]())
    return found


class use_backend:  # reads as a verb at its call sites
    """Sets the backend for new tensors: of the process when called, of a block (and thread) when used with ``with``.

    Example:
        >>> use_backend("cupy")              # from here on
        >>> with use_backend("numpy"):       # in this block
        ...     x = tn.zeros((2, 3))

    Raises:
        BackendError, MissingExtraError: as ``get_backend``; the choice stays as it was.
    """

    def __init__(self, backend: str | Backend):
        global _process
        self.backend = get_backend(backend)
        self._before = _process
        _process = self.backend

    def __enter__(self) -> Backend:
        # It turns out to be a block: the process's choice goes back, and the block's stands for this thread.
        global _process
        _process = self._before
        self._outer = _block.chosen
        _block.chosen = self.backend
        return self.backend

    def __exit__(self, *_) -> None:
        _block.chosen = self._outer
