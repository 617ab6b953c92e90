"""``save`` and ``load``: a model as one file of weights in the safetensors layout, with a description of its layers.

The description is JSON in the file's metadata: for each layer its registered name and the arguments of its constructor.
Loading builds a model from it by looking names up in the registry of layers, never by importing or unpickling, and
allocates nothing before the description, the shapes in the file and the file's own size have been found to agree.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from tinynet.backend import get_backend
from tinynet.errors import CheckpointError, TinynetError
from tinynet.nn import Module, abstract, registered_layers

from . import safetensors

MODEL, EXTRA = "tinynet.model", "tinynet.extra"
_VERSION = 1


def describe(model: Module) -> dict:
    """The model's layers as JSON can hold them.

    Raises:
        CheckpointError: a layer that is not registered, or an argument that JSON cannot hold.
    """
    return _describe(model, type(model).__name__)


def _describe(value, path: str):
    if isinstance(value, Module):
        name = type(value).__name__
        if registered_layers().get(name) is not type(value):
            raise CheckpointError(
                f"save, {path}", expected="registered layers", got=f"the class {name}",
                mend="derive it from tn.nn.Layer and decorate it with @tn.nn.register_layer, or save its state_dict()",
            )  # fmt: skip
        try:
            config = value.config()
        except AttributeError as error:
            raise CheckpointError(
                f"save, {path}", expected=f"{name} to keep the arguments of its constructor", got=str(error),
                mend="set an attribute for each, in a class derived from tn.nn.Layer; or define config(self)",
            ) from error  # fmt: skip
        return {"layer": name, "config": {k: _describe(v, f"{path}.{k}") for k, v in config.items()}}
    if isinstance(value, (list, tuple)):
        return [_describe(each, f"{path}[{i}]") for i, each in enumerate(value)]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise CheckpointError(
        f"save, {path}", expected="numbers, strings, lists or layers", got=repr(value),
        mend="name activations ('relu') instead of passing functions",
    )  # fmt: skip


def build(description, path: str = "model") -> Module:
    """The model of a description.

    Raises:
        CheckpointError: an unknown layer or arguments that its constructor refuses.
    """
    if not isinstance(description, dict) or description.keys() != {"layer", "config"}:
        raise CheckpointError(path, expected="a layer and its config", got=repr(description)[:80])
    name, config = description["layer"], description["config"]
    cls = registered_layers().get(name) if isinstance(name, str) else None
    if cls is None or not isinstance(config, dict):
        raise CheckpointError(
            path, expected=f"one of the layers {', '.join(registered_layers())}", got=repr(name)[:80],
            mend="import the module that registers the layer before loading",
        )  # fmt: skip
    arguments = {key: _built(value, f"{path}.{key}") for key, value in config.items()}
    try:
        return cls(*arguments.pop("layers"), **arguments) if "layers" in arguments else cls(**arguments)
    except (TypeError, ValueError, OverflowError, ArithmeticError, MemoryError) as error:
        raise CheckpointError(f"{path}: {name}", expected="arguments for its constructor", got=str(error)) from error


def _built(value, path: str):
    if isinstance(value, dict):
        return build(value, path)
    return [_built(each, f"{path}[{i}]") for i, each in enumerate(value)] if isinstance(value, list) else value


def save(model: Module, path: str | os.PathLike, extra: Mapping[str, Any] | None = None) -> None:
    """Writes a model to one file, atomically: a failure leaves what was there.

    Args:
        model: made of registered layers.
        path: of the file; ".safetensors" is the usual ending.
        extra: anything JSON can hold that belongs to the model (preprocessing, class names); see ``load_extra``.

    Raises:
        CheckpointError: a layer or an argument that cannot be described, or an ``extra`` that JSON cannot hold.
        OSError: the file cannot be written.
    """
    write(model, path, extra, {}, {})


def write(model: Module, path, extra, tensors: Mapping, metadata: Mapping[str, str]) -> None:
    """``save`` with further arrays and metadata in the same file (the state of a training run)."""
    own = {name: p.numpy() for name, p in model.named_parameters()}
    described = {"version": _VERSION, "model": describe(model)}
    try:
        more = json.dumps(extra or {})
    except (TypeError, ValueError, RecursionError) as error:
        raise CheckpointError("save, extra", expected="what JSON can hold", got=str(error)) from error
    safetensors.write(path, own | dict(tensors), {MODEL: json.dumps(described), EXTRA: more, **metadata})


def load(path: str | os.PathLike, backend=None) -> Module:
    """The model that ``save`` wrote, in evaluation mode or training mode as it is made: training.

    Args:
        path: of the file.
        backend: where its parameters shall live; the one in use by default.

    Raises:
        CheckpointError: the file is damaged, was not written by ``save``, or describes a layer that is not registered.
        OSError: it cannot be read.
    """
    return read(path, backend)[0]


def load_extra(path: str | os.PathLike) -> dict:
    """What was given to ``save`` as ``extra``. Errors as ``load``."""
    return _json(path, safetensors.read(path, checksums="require")[1], EXTRA)


def read(path, backend=None) -> tuple[Module, dict, dict, dict]:
    """(model, extra, further tensors, metadata)."""
    tensors, metadata = safetensors.read(path, checksums="require")
    described = _json(path, metadata, MODEL)
    if described.get("version") != _VERSION:
        raise CheckpointError(
            f"{path}", expected=f"a description of version {_VERSION}", got=repr(described.get("version")),
            mend="load it with the version of tinynet that wrote it",
        )  # fmt: skip
    try:
        with abstract():
            model = build(described.get("model"))
    except RecursionError as error:
        raise CheckpointError(f"{path}", expected="a description of layers", got="one nested too deeply") from error
    except TinynetError as error:
        error.add_note(f"in the model file {path}")
        raise
    backend = get_backend(backend)
    parameters = dict(model.named_parameters())
    dtypes = {tensors[name].dtype.name for name in parameters if name in tensors} & {"float32", "float64"}
    dtype = min(dtypes, default="float32")  # one for the whole model
    for name, p in parameters.items():
        found = tensors.pop(name, None)
        if found is None or found.shape != p.shape or found.dtype.name != dtype:
            got = "nothing" if found is None else f"{found.dtype} of shape {found.shape}"
            raise CheckpointError(f"{path}, tensor {name!r}", expected=f"{dtype} of shape {p.shape}", got=got)
        p.array, p.backend, p.dtype = backend.from_host(found), backend, found.dtype
    if tensors and metadata.keys() == {MODEL, EXTRA}:  # a training run has more of both
        raise CheckpointError(f"{path}", expected="the model's tensors and no others", got=", ".join(tensors)[:80])
    model.pack()
    return model, _json(path, metadata, EXTRA), tensors, metadata


def _json(path, metadata: Mapping[str, str], key: str) -> dict:
    try:
        found = json.loads(metadata[key])
    except (KeyError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path}", expected=f"the metadata {key!r}", got="none" if key not in metadata else "no JSON",
            mend="only files of tinynet.save describe a model; weights alone go through load_state_dict",
        ) from error  # fmt: skip
    if not isinstance(found, dict):
        raise CheckpointError(f"{path}, metadata {key!r}", expected="a JSON object", got=type(found).__name__)
    return found
