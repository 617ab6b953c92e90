"""Sizes in bytes as people write them. All units are read in one place, ``tinynet.meters.units``."""

from tinynet.meters.units import as_bytes, show_bytes

__all__ = ["as_bytes", "show_bytes"]
