"""Optimizer updates. Each output is written over the input of the same name: ``out`` aliases them."""

from __future__ import annotations

from ..registry import register
from .common import wide, write


def _decayed(g, p, weight_decay):
    """The gradient with weight decay. Without decay it is the gradient, even where a parameter is infinite."""
    return g + weight_decay * p if weight_decay else g


@register("accumulate")
def accumulate(out, x, value):
    out[...] = x + value


@register("gd")
def gd(out, p, g, lr, weight_decay):
    """Gradient descent: p = p - lr g, with weight decay added to the gradient."""
    out[...] = p - lr * _decayed(g, p, weight_decay)


@register("gd_momentum")
def gd_momentum(out, p, g, velocity, lr, momentum, nesterov, weight_decay):
    """Gradient descent with momentum: v = mu v + g;  p = p - lr v, or p - lr (g + mu v) for Nesterov's."""
    out_p, out_v = out
    g = _decayed(g, p, weight_decay)
    v = momentum * velocity + g
    out_v[...] = v
    out_p[...] = p - lr * (g + momentum * v if nesterov else v)


@register("adam")
def adam(out, p, g, m, v, lr, step, beta1, beta2, eps, weight_decay, decoupled):
    """Adam: Kingma and Ba, "Adam: a method for stochastic optimization", ICLR 2015, Algorithm 1; decoupled weight
    decay: Loshchilov and Hutter, ICLR 2019. ``step`` counts from 1. Computed in float64, rounded once."""
    out_p, out_m, out_v = out
    xp, p = wide(p)
    g, m, v, lr = (wide(each)[1] for each in (g, m, v, lr))
    t = xp.astype(step, xp.float64)
    if not decoupled:
        g = _decayed(g, p, weight_decay)
    elif weight_decay:
        p = p * (1 - lr * weight_decay)
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * (g * g)
    m_hat, v_hat = m / (1 - beta1**t), v / (1 - beta2**t)
    write(out_p, p - lr * m_hat / (v_hat**0.5 + eps))
    write(out_m, m)
    write(out_v, v)
