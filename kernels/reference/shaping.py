"""Operations that move elements and compute nothing."""

from __future__ import annotations

from ..registry import register


@register("cast")
def cast(out, x, dtype):
    out[...] = x.__array_namespace__().astype(x, out.dtype)


@register("alias")
def alias(out, x):
    out[...] = x


@register("assign")
def assign(out, x, value):
    out[...] = value


@register("reshape")
def reshape(out, x, shape):
    out[...] = x.__array_namespace__().reshape(x, out.shape)


@register("expand_dims")
def expand_dims(out, x, axis):
    out[...] = x.__array_namespace__().reshape(x, out.shape)


@register("squeeze")
def squeeze(out, x, axis):
    out[...] = x.__array_namespace__().reshape(x, out.shape)


@register("transpose")
def transpose(out, x, axes):
    out[...] = x.__array_namespace__().permute_dims(x, axes)


@register("broadcast_to")
def broadcast_to(out, x, shape):
    out[...] = x


@register("concatenate")
def concatenate(out, *parts, axis):
    at = 0
    for part in parts:
        out[(slice(None),) * axis + (slice(at, at + part.shape[axis]), ...)] = part
        at += part.shape[axis]


@register("stack")
def stack(out, *parts, axis):
    for i, part in enumerate(parts):
        out[(slice(None),) * axis + (i, ...)] = part


@register("pad")
def pad(out, x, widths, value):
    out[...] = value
    if all(x.shape):
        out[tuple(slice(before, before + n) for (before, _), n in zip(widths, x.shape)) or ...] = x
