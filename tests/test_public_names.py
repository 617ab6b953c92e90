"""The public names: complete, documented, and there without importing more than NumPy."""

from __future__ import annotations

import configparser
import inspect
import pkgutil
from pathlib import Path

import pytest

import tinynet as tn

ROOT = Path(__file__).parents[1]
ROOMS = [tn, tn.nn, tn.losses, tn.optim, tn.data, tn.train, tn.resources, tn.ops, tn.errors]


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.__name__)
def test_every_public_name_exists_and_has_a_docstring(room):
    for name in room.__all__:
        value = getattr(room, name)
        if callable(value) or inspect.ismodule(value):
            assert (value.__doc__ or "").strip(), f"{room.__name__}.{name} has no docstring"


@pytest.mark.parametrize("room", ROOMS, ids=lambda room: room.__name__)
def test_public_methods_have_docstrings(room):
    for name in room.__all__:
        value = getattr(room, name)
        if inspect.isclass(value):
            for method, function in vars(value).items():
                if inspect.isfunction(function) and not method.startswith("_") and method not in UNDERSTOOD:
                    assert function.__doc__ or _inherited(value, method), f"{room.__name__}.{name}.{method}"


# What these do is said by the class or by a convention of the field.
UNDERSTOOD = {"forward", "config", "extra", "kernel", "reshape", "transpose", "to_dict", "tolist"}


def _inherited(cls, method) -> bool:
    return any((getattr(base, method, None) or cls).__doc__ for base in cls.__mro__[1:] if hasattr(base, method))


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = tn.nonsense


def test_every_module_says_what_lives_in_it():
    for package in ("tinynet", "kernels"):
        for path in (ROOT / package).rglob("*.py"):
            assert path.read_text(encoding="utf-8").lstrip().startswith(('"""', 'r"""')), path


def test_setup_cfg_lists_every_package_and_needs_only_numpy():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    listed = set(config["options"]["packages"].split())
    found = {"tinynet"} | {
        info.name for info in pkgutil.walk_packages([str(ROOT / "tinynet")], "tinynet.") if info.ispkg
    }
    kernels = {"tinynet.kernels"} | {
        info.name for info in pkgutil.walk_packages([str(ROOT / "kernels")], "tinynet.kernels.") if info.ispkg
    }
    assert listed == found | kernels
    assert config["options"]["install_requires"].split() == ["numpy>=2.1"]
    extras = config["options.extras_require"]
    assert set(extras) == {"cpu", "cuda12", "cuda13", "io", "viz", "gpu", "tensorboard", "data", "test", "bench"}
