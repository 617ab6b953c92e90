"""Lesson: Adam by hand and by tinynet, on the line of gradient_descent.py.

Adam (Kingma and Ba, ICLR 2015) keeps two running means of each gradient g: of g itself and of its square,

    m = beta1 m + (1 - beta1) g        v = beta2 v + (1 - beta2) g^2

Both begin at 0 and are too small at first. Divided by 1 - beta^t they are means of t gradients, so t counts steps from
1: with t = 0, which is easily written, the divisor is 1 - 1 = 0. The step is

    p = p - lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)

At t = 1 the means are g and g^2, whatever the betas. The first step is then lr in the direction of -g, however large
the gradient is: 0.1 for w and for b alike, though their gradients are -56/3 and -8.

Run it: python examples/adam.py
"""

import math

import tinynet as tn

LR, BETA1, BETA2, EPS = 0.1, 0.9, 0.999, 1e-8
X, Y = (1.0, 2.0, 3.0), (2.0, 4.0, 6.0)

x, y = tn.tensor(X), tn.tensor(Y)
w, b = tn.tensor(0.0, requires_grad=True), tn.tensor(0.0, requires_grad=True)
optimizer = tn.optim.Adam([w, b], lr=LR, betas=(BETA1, BETA2), eps=EPS)

by_hand = {"w": 0.0, "b": 0.0}
m, v = dict.fromkeys("wb", 0.0), dict.fromkeys("wb", 0.0)
for t in range(1, 101):
    errors = [by_hand["w"] * each + by_hand["b"] - target for each, target in zip(X, Y)]
    gradient = {"w": 2 / 3 * sum(e * each for e, each in zip(errors, X)), "b": 2 / 3 * sum(errors)}
    for name, g in gradient.items():
        m[name] = BETA1 * m[name] + (1 - BETA1) * g
        v[name] = BETA2 * v[name] + (1 - BETA2) * g * g
        mean, square = m[name] / (1 - BETA1**t), v[name] / (1 - BETA2**t)
        by_hand[name] -= LR * mean / (math.sqrt(square) + EPS)

    optimizer.zero_grad()
    loss = tn.losses.mse(w * x + b, y)
    loss.backward()
    if t == 1:
        print(f"gradients at w = b = 0: {w.grad:.3f} and {b.grad:.3f}")
    optimizer.step()
    if t in (1, 2, 10, 100):
        print(f"after {t:3} steps: w = {w:.5f}, b = {b:.5f}; by hand {by_hand['w']:.5f} and {by_hand['b']:.5f}")
    assert abs(w.item() - by_hand["w"]) < 1e-4 and abs(b.item() - by_hand["b"]) < 1e-4
