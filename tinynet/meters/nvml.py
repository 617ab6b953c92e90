"""The energy counters of NVIDIA's GPUs, through the driver's library (NVML) and its Python binding nvidia-ml-py.

The counter is of the whole board, in millijoules since the driver was loaded; GPUs from Volta on have it. The binding
is imported when a GPU is to be metered.
"""

from __future__ import annotations

import os
from types import ModuleType

from tinynet.errors import MissingExtraError, import_extra

UPDATED = 0.1  # seconds between two updates of the counter, at most, on the GPUs of which it was published


def library() -> ModuleType:
    """The binding.

    Raises:
        MissingExtraError: nvidia-ml-py is not installed.
    """
    return import_extra("pynvml", "the energy of GPUs", "gpu")


class Account:
    """What one GPU has counted since it was opened. Once it could not be read it stays closed.

    Attributes:
        name: "gpu 0 (NVIDIA H100)".
        why: the reason why there is no number; None as long as there is one.
    """

    def __init__(self, nvml, token: int | str):
        self._nvml, self.why, self.name = nvml, None, f"gpu {token}"
        try:
            if isinstance(token, int):
                self._device = nvml.nvmlDeviceGetHandleByIndex(token)
            else:
                self._device = nvml.nvmlDeviceGetHandleByUUID(token)
            model = nvml.nvmlDeviceGetName(self._device)
            self.name += f" ({model.decode() if isinstance(model, bytes) else model})"
            self._begin = nvml.nvmlDeviceGetTotalEnergyConsumption(self._device)
        except nvml.NVMLError as error:
            self.why = f"NVML says: {error}"

    def joules(self) -> float | None:
        """Joules until now; None if there is a ``why``."""
        if self.why is None:
            try:
                count = self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._device)
                if count < self._begin:
                    self.why = "the counter went back: the driver was loaded anew"
            except self._nvml.NVMLError as error:
                self.why = f"NVML says: {error}"
        return None if self.why is not None else (count - self._begin) / 1e3


class Closed:
    """Stands for GPUs that cannot be counted at all."""

    def __init__(self, why: str):
        self.name, self.why = "gpu", why

    def joules(self) -> None:
        return None


def accounts(nvml=None) -> list[Account | Closed]:
    """An account for each GPU that this process may use, by CUDA_VISIBLE_DEVICES, or for the want of one.

    CUDA numbers GPUs as NVML does where they are of one model or CUDA_DEVICE_ORDER is PCI_BUS_ID.

    Args:
        nvml: the binding, or what stands for it; imported by default.
    """
    try:
        nvml = library() if nvml is None else nvml
        nvml.nvmlInit()
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        if visible is None:
            tokens = list(range(nvml.nvmlDeviceGetCount()))
        else:
            tokens = [int(each) if each.isdecimal() else each for each in map(str.strip, visible.split(",")) if each]
    except MissingExtraError as error:
        return [Closed(str(error))]
    except nvml.NVMLError as error:
        return [Closed(f"NVML says: {error}")]
    return [Account(nvml, token) for token in tokens] or [Closed("no GPU is visible")]
