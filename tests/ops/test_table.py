"""Every operation of the table, on every backend, through the shared suite."""

import pytest
import suite

import tinynet as tn

OPS = tuple(tn.ops.table())


@pytest.fixture(params=OPS)
def op(request):
    return tn.ops.table()[request.param]


@pytest.mark.parametrize("check", suite.CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_holds(check, op, backend):
    check(op, backend)


def test_refuses_two_backends(op, backend, other_backend):
    suite.check_refuses_two_backends(op, backend, other_backend)


@pytest.mark.parametrize("name", OPS)
def test_is_found_by_its_name(name):
    op = tn.ops.table()[name]
    assert getattr(tn.ops, name) is op
    assert not op.public or getattr(tn, name) is op
