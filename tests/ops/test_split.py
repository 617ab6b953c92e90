"""Split rules of the whole table against the numbers; what must split, and what must not."""

import numpy as np
import pytest
from suite_split import check_split, partitions, splits

import tinynet as tn
from tinynet.ops import Spec
from tinynet.ops.splitting import JOIN, MEAN, SUM, part_of

TABLE = tn.ops.table()
FLOAT, INT = np.dtype("float64"), np.dtype("int64")
# What a training step of dense layers is made of. Without a rule for each of them no batch could be cut.
NEEDED = {
    "linear", "matmul", "sum", "mean", "sum_to", "broadcast_to", "softmax", "log_softmax", "softmax_cross_entropy",
    "softmax_cross_entropy_grad", "mse", "layer_norm", "dropout", "reshape", "transpose", "expand_dims", "squeeze",
    "concatenate", "stack", "getitem", "setitem_zeros", "take", "scatter_add", "one_hot", "cast", "alias", "pad",
    "max", "min", "var", "logsumexp", "argmax", "assign", "accumulate", "gd", "gd_momentum", "adam",
}  # fmt: skip


def rule(name, *shapes, axes, n=6, dtypes=(), **attributes):
    """What the rule of an operation says of inputs of these shapes."""
    op = TABLE[name]
    specs = [Spec(shape, dtypes[i] if i < len(dtypes) else FLOAT) for i, shape in enumerate(shapes)]
    given = op.attributes | attributes
    return op.split(n, axes, *specs, **(op.normalize(*specs, **given) if op.normalize else given))


@pytest.mark.parametrize("name", TABLE)
def test_parts_put_together_are_the_whole(name):
    op = TABLE[name]
    taken = check_split(op)
    assert op.split is None or taken, f"{name} has a rule that takes nothing of what its samples offer"


def test_a_dense_network_can_be_cut():
    for name, op in TABLE.items():
        if op.expression is not None or name in NEEDED:
            assert op.split is not None and any(
                axes[0] == 0 or name == "squeeze" for *_, axes, _ in splits(op)
            ), name


@pytest.mark.parametrize(("found", "combine", "axis"), [
    (rule("linear", (6, 3), (3, 2), (2,), axes=(0, None, None)), JOIN, 0),
    (rule("linear", (2, 6, 3), (3, 2), axes=(1, None)), JOIN, 1),
    (rule("matmul", (6, 3), (3, 2), axes=(0, None)), JOIN, 0),
    (rule("matmul", (3, 6), (6, 2), axes=(1, 0)), SUM, None),
    (rule("matmul", (6,), (6, 2), axes=(0, 0)), SUM, None),
    (rule("matmul", (3, 2), (2, 6), axes=(None, 1)), JOIN, 1),
    (rule("sum", (6, 3), axes=(0,)), SUM, None),
    (rule("sum", (6, 3), axes=(0,), axis=1), JOIN, 0),
    (rule("sum", (3, 6), axes=(1,), axis=0, keepdims=True), JOIN, 1),
    (rule("mean", (6, 3), axes=(0,), axis=0), MEAN, None),
    (rule("max", (6, 3), axes=(0,), axis=1), JOIN, 0),
    (rule("mse", (6, 3), (6, 3), axes=(0, 0)), MEAN, None),
    (rule("softmax_cross_entropy", (6, 3), (6,), axes=(0, 0), dtypes=(FLOAT, INT)), JOIN, 0),
    (rule("softmax_cross_entropy", (6, 3), (6, 3), axes=(0, 0)), JOIN, 0),
    (TABLE["transpose"].split(6, (0,), Spec((6, 3), FLOAT), axes=(1, 0)), JOIN, 1),
    (rule("reshape", (6, 4), axes=(0,), shape=(6, 2, 2)), JOIN, 0),
    (rule("reshape", (6, 4), axes=(0,), shape=(24,)), JOIN, 0),
    (rule("sum_to", (6, 3), axes=(0,), shape=(3,)), SUM, None),
    (rule("add", (6, 3), (3,), axes=(0, None)), JOIN, 0),
    (rule("getitem", (6, 3), axes=(0,), index=(slice(None), slice(0, 2))), JOIN, 0),
    (rule("take", (5, 3), (6,), axes=(None, 0), dtypes=(FLOAT, INT)), JOIN, 0),
    (rule("scatter_add", (6, 3), (6,), axes=(0, 0), size=5, dtypes=(FLOAT, INT)), SUM, None),
])  # fmt: skip
def test_how_parts_become_the_whole(found, combine, axis):
    assert found is not None and (found.combine, found.axis) == (combine, axis)


REFUSED = {
    "softmax along the rows": lambda: rule("softmax", (6, 3), axes=(0,), axis=0),
    "softmax along the classes": lambda: rule("softmax", (3, 6), axes=(1,)),
    "log_softmax along the rows": lambda: rule("log_softmax", (6, 3), axes=(0,), axis=0),
    "layer_norm within a row": lambda: rule("layer_norm", (3, 6), (6,), (6,), axes=(1, None, None)),
    "layer_norm, gain in rows": lambda: rule("layer_norm", (3, 6), (6,), (6,), axes=(None, 0, None)),
    "linear within a row": lambda: rule("linear", (3, 6), (6, 2), axes=(1, 0)),
    "linear, weights in rows": lambda: rule("linear", (3, 6), (6, 2), axes=(None, 0)),
    "matmul, rows with columns": lambda: rule("matmul", (6, 3), (3, 6), axes=(0, 1)),
    "matmul, rows with the inner axis": lambda: rule("matmul", (6, 6), (6, 2), axes=(0, 0)),
    "matmul of rows with themselves": lambda: rule("matmul", (6, 6), (6, 6), axes=(0, 1)),
    "variance of the batch": lambda: rule("var", (6, 3), axes=(0,), axis=0),
    "logsumexp of the batch": lambda: rule("logsumexp", (6, 3), axes=(0,)),
    "max of the batch": lambda: rule("max", (6, 3), axes=(0,), axis=0),
    "min of all": lambda: rule("min", (6, 3), axes=(0,)),
    "argmax of all": lambda: rule("argmax", (6, 3), axes=(0,)),
    "argmax of columns": lambda: rule("argmax", (6, 3), axes=(0,), axis=0),
    "one row": lambda: rule("getitem", (6, 3), axes=(0,), index=(2,)),
    "some rows": lambda: rule("getitem", (6, 3), axes=(0,), index=(slice(0, 4),)),
    "every other row": lambda: rule("getitem", (6, 3), axes=(0,), index=(slice(None, None, 2),)),
    "rows backwards": lambda: rule("getitem", (6, 3), axes=(0,), index=(slice(None, None, -1),)),
    "rows among zeros": lambda: rule("setitem_zeros", (6, 3), axes=(0,), index=(slice(0, 6),), shape=(12, 3)),
    "rows picked": lambda: rule("take", (6, 3), (6,), axes=(0, None), dtypes=(FLOAT, INT)),
    "rows picked by rows": lambda: rule("take", (6, 3), (6,), axes=(0, 0), dtypes=(FLOAT, INT)),
    "columns added by rows": lambda: rule("scatter_add", (3, 6), (3,), axes=(1, 0), size=5, dtypes=(FLOAT, INT)),
    "rows behind rows": lambda: rule("concatenate", (6, 3), (6, 3), axes=(0, 0), axis=0),
    "rows beside columns": lambda: rule("add", (6, 6), (6, 6), axes=(0, 1)),
    "rows against a row": lambda: rule("multiply", (6, 1), (6,), axes=(0, 0)),
    "classes": lambda: rule("softmax_cross_entropy", (3, 6), (3, 6), axes=(1, 1)),
    "elements of a mask": lambda: rule("dropout", (3, 6), (), axes=(1, None), seed=1, dtypes=(FLOAT, INT)),
    "rows with a border": lambda: rule("pad", (6, 3), axes=(0,), widths=((1, 0), (0, 0))),
    "rows and columns mixed": lambda: rule("reshape", (4, 6), axes=(1,), shape=(6, 4)),
    "broadcast rows": lambda: rule("broadcast_to", (1, 3), axes=(0,), n=1, shape=(6, 3)),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_mixes_rows_is_refused(what):
    assert REFUSED[what]() is None


def test_dropout_gives_the_rows_of_the_whole_mask():
    x, step = np.ones((6, 5)), np.array(3)
    found = rule("dropout", (6, 5), (), axes=(0, None), seed=9, stream=2, offset=10, dtypes=(FLOAT, INT))
    whole = tn.ops.dropout(x, step, seed=9, stream=2, offset=10).numpy()
    assert 0 < (whole == 0).sum() < whole.size
    for start, stop in ((0, 1), (1, 4), (4, 6)):
        part = tn.ops.dropout(x[start:stop], step, seed=9, stream=2, **found.attributes(start, stop)).numpy()
        np.testing.assert_array_equal(part, whole[start:stop])


def test_parts_of_a_spec_are_in_proportion():
    assert part_of(Spec((2, 12), FLOAT), 1, 6, 2, 5) == Spec((2, 6), FLOAT)
    assert part_of(Spec((2, 12), FLOAT), None, 6, 2, 5) == Spec((2, 12), FLOAT)
    assert partitions(4) == [(0, 1, 2, 3, 4), (0, 1, 4), (0, 2, 4), (0, 3, 4)]
