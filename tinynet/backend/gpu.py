"""Arrays on an NVIDIA GPU: what ``arrays.Backend`` is for CuPy. CuPy is imported when the backend is first used."""

from __future__ import annotations

import math

import numpy as np

from tinynet.errors import BackendError, import_extra

from .arrays import Backend
from .lending import lent


class CuPyBackend(Backend):
    """CuPy arrays on the current CUDA device.

    Raises:
        MissingExtraError: CuPy is not installed.
        BackendError: CuPy is installed, but there is no usable NVIDIA GPU.
    """

    target = "cupy"
    captures = feeds = True
    alignment = 256  # what cudaMalloc promises

    def __init__(self):
        cupy = import_extra("cupy", "backend 'cupy'", "cuda12 or cuda13")
        try:
            count = cupy.cuda.runtime.getDeviceCount()
        except cupy.cuda.runtime.CUDARuntimeError as error:
            count, reason = 0, str(error)
        else:
            reason = "0 devices"
        if not count:
            raise BackendError(
                "backend 'cupy'",
                expected="an NVIDIA GPU that CUDA can use",
                got=reason,
                mend="run nvidia-smi to see whether driver and device are there, or use the backend 'numpy'",
            )
        super().__init__("cupy", cupy)

    def empty(self, shape, dtype):
        array = lent(self, shape, dtype)
        return self.xp.empty(shape, dtype) if array is None else array

    def full(self, shape, value, dtype):
        array = self.empty(shape, dtype)
        self.xp.copyto(array, value, casting="unsafe")
        return array

    def zeros(self, shape, dtype):
        array = lent(self, shape, dtype)
        if array is None:
            return self.xp.zeros(shape, dtype)
        array[...] = 0
        return array

    def from_host(self, array):
        array = np.ascontiguousarray(array).reshape(array.shape)
        copy = lent(self, array.shape, array.dtype)
        if copy is None:
            return self.xp.array(array)
        copy.set(array)
        return copy

    def to_host(self, array):
        return self.xp.asnumpy(array)

    def copy(self, array):
        copy = lent(self, array.shape, array.dtype)
        if copy is None:
            return self.xp.array(array)
        copy[...] = array
        return copy

    def contiguous(self, array):
        return array if array.flags.c_contiguous else self.copy(array)

    def carve(self, block, offset, shape, dtype):
        return self.xp.ndarray(shape, dtype, memptr=block.data + offset)

    def block(self, nbytes):
        try:
            return self.xp.empty((nbytes,), np.uint8)  # CuPy's pool gives multiples of 512 bytes
        except self.xp.cuda.memory.OutOfMemoryError:  # the pool may hold pieces that are too small
            self.xp.get_default_memory_pool().free_all_blocks()
        try:
            return self.xp.empty((nbytes,), np.uint8)
        except self.xp.cuda.memory.OutOfMemoryError as error:
            raise MemoryError(str(error)) from error

    def free_bytes(self):
        pool = self.xp.get_default_memory_pool()
        free, limit = int(self.xp.cuda.runtime.memGetInfo()[0]) + pool.free_bytes(), pool.get_limit()
        return max(0, min(free, limit - pool.used_bytes())) if limit else free  # CuPy's 0 is no limit

    def lend(self, block, offset, shape, dtype):
        # Views share the memory object, and with it the one owner.
        cuda, owner = self.xp.cuda, _Loan(block)
        nbytes = math.prod(shape) * dtype.itemsize
        memory = cuda.UnownedMemory(block.data.ptr + offset, nbytes, owner, block.device.id)
        return self.xp.ndarray(shape, dtype, memptr=cuda.MemoryPointer(memory, 0)), owner

    def owner(self, array):
        memory = array.data.mem
        return memory if getattr(memory, "_owner", None) is None else memory._owner

    def address(self, array):
        return array.data.ptr

    def reshape(self, array, shape):
        result = array.reshape(shape)
        return result, result.size == 0 or result.data.ptr == array.data.ptr

    def writable(self, array):
        # CuPy has no flag for it: elements of a broadcast array share memory
        return all(stride or n < 2 for n, stride in zip(array.shape, array.strides))

    def synchronize(self):
        self.xp.cuda.get_current_stream().synchronize()


class _Loan:
    """What lives as long as CuPy arrays that lie in one piece of a block, and keeps the block."""

    def __init__(self, block):
        self.block = block
