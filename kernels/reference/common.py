"""What the reference kernels share: widening to float64 on the way in, rounding once on the way out."""

from __future__ import annotations


def wide(x):
    """The namespace of ``x``, and ``x`` in float64 if it is floating."""
    xp = x.__array_namespace__()
    return xp, xp.astype(x, xp.float64) if xp.isdtype(x.dtype, "real floating") else x


def write(out, value) -> None:
    """Rounds ``value`` to the element type of ``out`` and stores it; a NumPy scalar is as good as a 0-d array."""
    xp = out.__array_namespace__()
    out[...] = xp.astype(xp.asarray(value, device=out.device), out.dtype)
