"""Lesson: gradient descent on a line, by hand and by tinynet.

Three points lie on y = 2x. The model w x + b starts at w = b = 0. Its mean squared error there is
((0-2)^2 + (0-4)^2 + (0-6)^2) / 3 = 56/3, and its gradient is

    dJ/dw = 2/3 * sum((w x + b - y) x) = -56/3        dJ/db = 2/3 * sum(w x + b - y) = -8

so both w and b grow at the first step. (A sign slips easily here: descent goes against the gradient.)

Run it: python examples/gradient_descent.py
"""

import tinynet as tn

x = tn.tensor([1.0, 2.0, 3.0])
y = tn.tensor([2.0, 4.0, 6.0])
w = tn.tensor(0.0, requires_grad=True)
b = tn.tensor(0.0, requires_grad=True)

loss = tn.losses.mse(w * x + b, y)
loss.backward()
print(f"at w = b = 0: J = {loss:.3f}, dJ/dw = {w.grad:.3f}, dJ/db = {b.grad:.3f}")
assert abs(loss.item() - 56 / 3) < 1e-5 and abs(w.grad.item() + 56 / 3) < 1e-5 and abs(b.grad.item() + 8) < 1e-5

optimizer = tn.optim.GD([w, b], lr=0.1)
for step in range(301):
    optimizer.zero_grad()
    loss = tn.losses.mse(w * x + b, y)
    if step in (0, 1, 10, 100, 300):
        print(f"after {step:3} steps: J = {loss:.6f}, w = {w:.4f}, b = {b:.4f}")
    loss.backward()
    optimizer.step()
assert abs(w.item() - 2) < 1e-3
