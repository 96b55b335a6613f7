"""Training checkpoints without pickle: a folder of JSON and safetensors, whole or absent.

Lightning hands over nested dicts of numbers, strings and tensors. Tensors go to
``tensors.safetensors``, the rest to ``state.json``; both are written into a new folder that is
renamed last, so a checkpoint that has its name is whole.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import CheckpointIO
from safetensors.torch import load_file, save_file

from sciddm.errors import InputError, RunError

Json = Any


class SafeCheckpoints(CheckpointIO):
    """The `CheckpointIO` of Lightning's trainer that never pickles."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None  # noqa: ANN401
    ) -> None:
        """Write ``checkpoint`` to the folder ``path``; replaces one of the same name."""
        path = Path(path)
        fresh = path.with_name(f".{path.name}.partial")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        tensors: dict[str, torch.Tensor] = {}
        (fresh / "state.json").write_text(json.dumps(_pack(checkpoint, tensors)))
        save_file(tensors, fresh / "tensors.safetensors")
        for file in fresh.iterdir():
            with open(file, "rb") as handle:
                os.fsync(handle.fileno())
        shutil.rmtree(path, ignore_errors=True)
        fresh.rename(path)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None  # noqa: ANN401
    ) -> dict[str, Any]:
        """Read a folder written by `save_checkpoint`."""
        path = Path(path)
        try:
            tensors = load_file(path / "tensors.safetensors")
            state = _unpack(json.loads((path / "state.json").read_text()), tensors)
        except Exception as fault:
            raise InputError(f"The checkpoint {path} cannot be read ({fault}); remove it.") from None
        if not isinstance(state, dict):
            raise InputError(f"The checkpoint {path} holds no training state; remove it.")
        return state

    def remove_checkpoint(self, path: str | Path) -> None:
        """Delete the folder."""
        shutil.rmtree(path, ignore_errors=True)


def newest(folder: str | Path) -> Path | None:
    """The last whole checkpoint in ``folder`` (``step=N.ckpt``), or None."""
    found = [p for p in Path(folder).glob("step=*.ckpt") if (p / "tensors.safetensors").is_file()]
    return max(found, key=lambda p: int(p.stem.removeprefix("step=")), default=None)


def _pack(value: object, tensors: dict[str, torch.Tensor]) -> Json:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, torch.Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().cpu().contiguous().clone()
        return {"$": "tensor", "name": name}
    if isinstance(value, dict):
        items = [[_pack(k, tensors), _pack(v, tensors)] for k, v in value.items()]
        return {"$": "dict", "items": items}
    if isinstance(value, list | tuple):
        return {"$": type(value).__name__, "items": [_pack(v, tensors) for v in value]}
    raise RunError(f"A training state holds a {type(value).__name__}, which is not data.")


def _unpack(node: Json, tensors: dict[str, torch.Tensor]) -> object:
    if not isinstance(node, dict):
        return node
    kind = node["$"]
    if kind == "tensor":
        return tensors[node["name"]]
    if kind == "dict":
        return {_unpack(k, tensors): _unpack(v, tensors) for k, v in node["items"]}
    items = [_unpack(v, tensors) for v in node["items"]]
    return tuple(items) if kind == "tuple" else items
