"""``tinynet plan``: what a training step of a dense network will take, and what fits into a budget."""

from __future__ import annotations

import tinynet as tn
from tinynet.errors import ArgumentError, PlanError
from tinynet.kernels import PRECISIONS
from tinynet.memory.units import as_bytes, show_bytes

from .train import ACTIVATIONS, OPTIMIZERS, sizes

_BUDGETS = ("1 MiB", "8 MiB", "64 MiB", "1 GiB", "16 GiB")


def add_parser(commands) -> None:
    parser = commands.add_parser("plan", help="what a training step takes, and what fits into a budget of memory")
    add = parser.add_argument
    add("--layers", type=sizes, required=True, metavar="N,N,N", help="features, hidden layers, outputs: 784,512,512,10")
    add("--batch", type=int, default=32, metavar="N", help="samples per step (32)")
    add("--optimizer", choices=OPTIMIZERS, default="adam", help="(adam)")
    add("--activation", choices=ACTIVATIONS, default="relu", help="of the hidden layers (relu)")
    add("--dropout", type=float, default=0.0, metavar="P", help="after each hidden layer (0)")
    add("--loss", choices=("cross_entropy", "mse"), default="cross_entropy", help="(cross_entropy)")
    add("--dtype", choices=("float32", "float64"), default="float32", help="(float32)")
    add("--executor", choices=("numpy", "native", "cuda"), help="whose kernels would run it (the fastest here)")
    add("--precision", choices=PRECISIONS, default="float32", help="of products, with --executor cuda (float32)")
    add("--memory", metavar="SIZE", help="a budget beyond parameters, moments and the batch, such as 8MB or 64MiB")
    add("--tensors", action="store_true", help="list every tensor with its place and lifetime")
    add("--svg", metavar="FILE", help="draw the memory map")
    parser.set_defaults(run=_plan)


def _plan(args) -> None:
    if len(args.layers) < 2:
        raise ArgumentError("plan --layers", expected="two sizes or more: features and outputs", got=str(args.layers))
    with tn.nn.abstract():
        model = _model(args)
    budget = None if args.memory is None else as_bytes(args.memory, "plan --memory")
    how = {"executor": args.executor, "precision": args.precision}
    free = tn.plan(model, args.loss, args.optimizer, args.batch, **how)
    chosen, refusal = free, None
    if budget is not None:
        try:
            chosen = tn.plan(model, args.loss, args.optimizer, args.batch, memory=budget, **how)
        except PlanError as error:
            refusal = error
    shown = "-".join(map(str, args.layers))
    count = sum(p.size for p in model.parameters())
    print(f"network {shown}, {count:,} parameters, batch {args.batch:,}, {args.optimizer}, {args.loss}")
    print(chosen.summary())
    for at in (budget,) if budget is not None else [as_bytes(each, "budget") for each in _BUDGETS]:
        most = free.largest_batch(at)
        print(f"largest batch in {show_bytes(at):>8} of workspace, nothing cut or made again: {most:,}")
    if args.tensors:
        print(chosen.table())
    if args.svg:
        chosen.svg(args.svg)
        print(f"memory map in {args.svg}")
    if refusal is not None:
        raise refusal


def _model(args) -> tn.nn.Module:
    layers: list = []
    for i, (n, m) in enumerate(zip(args.layers, args.layers[1:])):
        hidden = i < len(args.layers) - 2
        layers.append(tn.nn.Dense(n, m, args.activation if hidden else None))
        if hidden and args.dropout:
            layers.append(tn.nn.Dropout(args.dropout))
    return tn.nn.Sequential(*layers).astype(args.dtype)
