"""Random expressions: a chain in blocks gives the bits of its parts one by one; text and tree say the same."""

import numpy as np
import pytest

pytest.importorskip("hypothesis", reason="hypothesis is not installed")

from block_checks import NAMES, arrays_for, bits, bound
from hypothesis import given, settings
from hypothesis import strategies as st

from tinynet.kernels import Expression, derive
from tinynet.kernels.cpu import cutting
from tinynet.kernels.expression import FUNCTIONS, Node, checked, linear, parse, text_of

EXPONENTS = (2.0, 0.5, -1.0, 3.0, 1.7)
BOOLEAN = ("==", "!=", "<", "<=", ">", ">=", "logical_and", "logical_or", "logical_not")


def _numbers(children):
    unary = st.sampled_from([name for name, n in FUNCTIONS.items() if n == 1 and name not in BOOLEAN] + ["neg"])
    binary = st.sampled_from(["+", "-", "*", "/", "maximum", "minimum"])
    return st.one_of(
        st.builds(lambda op, x: Node(op, (x,)), unary, children),
        st.builds(lambda op, x, y: Node(op, (x, y)), binary, children, children),
        st.builds(lambda x, n: Node("**", (x, Node("const", (n,)))), children, st.sampled_from(EXPONENTS)),
        st.builds(lambda c, x, y: Node("where", (c, x, y)), _conditions(children), children, children),
        st.builds(lambda c, x: Node("*", (c, x)), _conditions(children), children),
    )


def _conditions(children):
    compared = st.builds(
        lambda op, x, y: Node(op, (x, y)), st.sampled_from(["==", "!=", "<", "<=", ">", ">="]), children, children
    )
    both = st.builds(
        lambda op, x, y: Node(op, (x, y)), st.sampled_from(["logical_and", "logical_or"]), compared, compared
    )
    return st.one_of(compared, both, st.builds(lambda x: Node("logical_not", (x,)), compared))


LEAVES = st.one_of(
    st.sampled_from(NAMES).map(lambda name: Node("name", (name,))),
    st.sampled_from([0, 0.0, 1, -2, 0.5, 3.25]).map(lambda value: Node("const", (value,))),
)
TREES = st.recursive(LEAVES, _numbers, max_leaves=12).map(lambda tree: checked(tree, NAMES))


def one_by_one(tree, arrays):
    """Each subtree by a kernel of its own, into an array of its own."""
    results = []
    for op, args in linear(tree):
        if op == "name":
            results.append(arrays[args[0]])
        elif op == "const":
            results.append(args[0])
        else:
            operands = [results[i] for i in args]
            if not any(isinstance(each, np.ndarray) for each in operands):
                return None  # arithmetic of numbers that has no value in Python
            names = [f"x{i}" for i, each in enumerate(operands) if isinstance(each, np.ndarray)]
            node = Node(op, tuple(
                Node("name", (f"x{i}",)) if isinstance(each, np.ndarray) else Node("const", (each,))
                for i, each in enumerate(operands)
            ))  # fmt: skip
            expression = Expression(node, tuple(names))
            given = [each for each in operands if isinstance(each, np.ndarray)]
            with np.errstate(all="ignore"):
                like = expression.function()(np, *given)
            out = np.empty(like.shape, like.dtype)
            derive(expression, "numpy")(out, *given)
            results.append(out)
    return results[-1]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@given(tree=TREES, block=st.sampled_from([7, 35, 64, 100, 16384]))
@settings(deadline=None, max_examples=150)
def test_a_fused_chain_gives_the_bits_of_its_parts(dtype, tree, block):
    names = tuple(name for name in NAMES if any(node == Node("name", (name,)) for node in tree.walk()))
    if not names:
        return
    arrays = arrays_for(dtype)
    with np.errstate(all="ignore"):
        expected = one_by_one(tree, arrays)
    if expected is None:
        return
    kernel = derive(Expression(tree, names), "numpy")
    given = [arrays[name] for name in names]
    before = [each.copy() for each in given]
    with pytest.MonkeyPatch.context() as patch, np.errstate(all="ignore"):
        patch.setattr(cutting, "BLOCK", block)
        eager, steps = (np.empty(expected.shape, expected.dtype) for _ in range(2))
        kernel(eager, *given)
        bound(kernel, steps, *given)
    np.testing.assert_array_equal(bits(eager), bits(expected))
    np.testing.assert_array_equal(bits(steps), bits(expected))
    for each, old in zip(given, before):
        np.testing.assert_array_equal(bits(each), bits(old))


@given(tree=TREES)
@settings(deadline=None, max_examples=200)
def test_text_of_a_tree_is_read_back_as_the_tree(tree):
    assert linear(parse(text_of(tree), NAMES)) == linear(tree)
    assert repr(parse(text_of(tree), NAMES)) == repr(tree)
