"""A model as data: a tree of sciddm classes and their arguments, and the tensors they hold.

`encode` turns values into JSON and named tensors, `decode` builds them again. Every class that can
be saved keeps each argument of its constructor as an attribute of the same name. Decoding builds
only classes of the list it is given, so a folder can describe a model and never run anything.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from sciddm.errors import InputError, nearest

Json = Any


class Encoder:
    """Collects tensors by name; the same tensor twice is stored once."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        # the tensor is held beside its name: the id of a freed one is given to another
        self._names: dict[int, tuple[str, Tensor]] = {}

    def encode(self, value: object, path: str = "") -> Json:
        """The JSON of ``value``; tensors go to ``self.tensors`` under their ``path``."""
        if value is None or isinstance(value, bool | int | float | str):
            return value
        if isinstance(value, Tensor):
            return {"tensor": self._keep(value, path)}
        if isinstance(value, np.ndarray):
            return {"array": self._keep(torch.from_numpy(np.ascontiguousarray(value)), path)}
        if isinstance(value, tuple | list):
            return [self.encode(v, f"{path}.{i}") for i, v in enumerate(value)]
        if isinstance(value, Mapping):
            return {"map": {str(k): self.encode(v, f"{path}.{k}") for k, v in value.items()}}
        return self._object(value, path)

    def _object(self, value: object, path: str) -> Json:
        names = arguments(type(value))
        node: dict[str, Json] = {
            "class": type(value).__name__,
            "args": {
                name: self.encode(getattr(value, name), f"{path}.{name}".strip("."))
                for name in names
            },
        }
        own = isinstance(value, nn.Module) and not any(
            isinstance(getattr(value, name), nn.Module) for name in names
        )
        if own and isinstance(value, nn.Module) and value.state_dict():
            node["state"] = {
                key: self._keep(tensor, f"{path}.{key}".strip("."))
                for key, tensor in value.state_dict().items()
            }
        return node

    def _keep(self, tensor: Tensor, path: str) -> str:
        if id(tensor) in self._names:
            return self._names[id(tensor)][0]
        name = path.strip(".")
        while name in self.tensors:  # keys of a mapping may hold dots
            name += "_"
        self._names[id(tensor)] = name, tensor
        self.tensors[name] = tensor.detach().cpu().contiguous().clone()
        return name


def decode(node: Json, tensors: Mapping[str, Tensor], classes: Mapping[str, type]) -> Any:  # noqa: ANN401
    """Build the value of ``node`` from ``classes`` alone.

    Raises `InputError` for a class that is not listed, a missing tensor or a wrong argument.
    """
    if isinstance(node, list):
        return tuple(decode(v, tensors, classes) for v in node)
    if not isinstance(node, dict):
        return node
    if "tensor" in node:
        return _get(tensors, node["tensor"])
    if "array" in node:
        return _get(tensors, node["array"]).numpy()
    if "map" in node:
        return {k: decode(v, tensors, classes) for k, v in node["map"].items()}
    name = str(node.get("class"))
    if name not in classes:
        raise InputError(
            f"The model names the class {name!r}, which sciddm does not offer."
            + nearest(name, classes)
        )
    given = node.get("args", {})
    if not isinstance(given, dict):
        raise InputError(f"The model gives {name} no arguments by name.")
    args = {k: decode(v, tensors, classes) for k, v in given.items()}
    expected = arguments(classes[name])
    unknown = [k for k in args if k not in expected]
    if unknown:
        raise InputError(
            f"The model gives {name} an argument {unknown[0]!r} it does not take."
            + nearest(unknown[0], expected)
        )
    if "state" not in node:
        return _build(name, classes[name], args)
    state = {key: _get(tensors, where) for key, where in node["state"].items()}
    with _Bounded(name, sum(tensor.numel() for tensor in state.values())):
        value = _build(name, classes[name], args)
    wanted = value.state_dict()
    wrong = [
        key
        for key in wanted.keys() | state.keys()
        if key not in wanted
        or key not in state
        or (wanted[key].shape, wanted[key].dtype) != (state[key].shape, state[key].dtype)
    ]
    if wrong:
        raise InputError(
            f"The weights of {name} do not fit its description: {sorted(wrong)[0]!r} is "
            "missing, extra or of another shape. The folder is not a whole saved model."
        )
    value.load_state_dict(state)
    return value


def _build(name: str, kind: type, args: dict[str, Any]) -> Any:  # noqa: ANN401
    try:
        return kind(**args)
    except InputError:
        raise
    except Exception as fault:  # whatever a constructor makes of a wrong description
        line = " ".join(str(fault).split())[:200]
        raise InputError(f"The model's {name} cannot be built: {line}.") from None


class _Bounded(TorchFunctionMode):
    """Stops a constructor that makes far more numbers than its saved weights hold.

    A description may claim any size; it is refused before the memory is taken.
    """

    makers = frozenset({torch.empty, torch.full, torch.ones, torch.rand, torch.randn, torch.zeros})

    def __init__(self, name: str, weights: int) -> None:
        self.name, self.left = name, 10 * weights + 10_000  # initial values take temporaries

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in self.makers:
            sizes = args[0] if args and isinstance(args[0], tuple | list) else args
            self.left -= math.prod(n for n in sizes if isinstance(n, int))
            if self.left < 0:
                raise InputError(
                    f"{self.name} is described larger than its weights are; the folder is not a "
                    "whole saved model."
                )
        return func(*args, **(kwargs or {}))


def arguments(kind: type) -> list[str]:
    """Names of the constructor's arguments."""
    if dataclasses.is_dataclass(kind):
        return [f.name for f in dataclasses.fields(kind) if f.init]
    named = inspect.signature(kind.__init__).parameters.values()  # type: ignore[misc]
    open_ended = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in named if p.name != "self" and p.kind not in open_ended]


def _get(tensors: Mapping[str, Tensor], name: object) -> Tensor:
    if not isinstance(name, str) or name not in tensors:
        raise InputError(
            f"The tensor {name!r} is missing from the weights; the folder is not a whole saved "
            "model."
        )
    return tensors[name]
