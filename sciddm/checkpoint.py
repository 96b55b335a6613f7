"""Training checkpoints without pickle: a folder of JSON and safetensors, whole or absent.

Lightning hands over nested dicts of numbers, strings and tensors. Tensors go to
``tensors.safetensors``, the rest to ``state.json``, their hashes to ``sha256.json``; all are
written into a new folder that is renamed last, so a checkpoint that has its name is whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import CheckpointIO
from safetensors.torch import load_file, save_file

from sciddm.errors import InputError, RunError

Json = Any
FILES = ("state.json", "tensors.safetensors")


class SafeCheckpoints(CheckpointIO):
    """The `CheckpointIO` of Lightning's trainer that never pickles."""

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | Path,
        storage_options: Any = None,  # noqa: ANN401
    ) -> None:
        """Write ``checkpoint`` to the folder ``path``; replaces one of the same name."""
        path = Path(path)
        fresh = path.with_name(f".{path.name}.partial")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        tensors: dict[str, torch.Tensor] = {}
        (fresh / "state.json").write_text(json.dumps(_pack(checkpoint, tensors)))
        save_file(tensors, fresh / "tensors.safetensors")
        hashes = {name: _digest(fresh / name) for name in FILES}
        (fresh / "sha256.json").write_text(json.dumps(hashes))
        for file in fresh.iterdir():
            with open(file, "rb") as handle:
                os.fsync(handle.fileno())
        old = path.with_name(f".{path.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        if path.exists():
            path.rename(old)
        fresh.rename(path)
        shutil.rmtree(old, ignore_errors=True)

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Any = None,
        weights_only: bool | None = None,  # noqa: ANN401
    ) -> dict[str, Any]:
        """Read a folder written by `save_checkpoint`."""
        path = Path(path)
        fault = broken(path)
        if fault:
            raise InputError(f"The checkpoint {path} is not whole ({fault}); remove it.")
        try:
            tensors = load_file(path / "tensors.safetensors")
            state = _unpack(json.loads((path / "state.json").read_text()), tensors)
        except Exception as fault:
            raise InputError(
                f"The checkpoint {path} cannot be read ({fault}); remove it."
            ) from None
        if not isinstance(state, dict):
            raise InputError(f"The checkpoint {path} holds no training state; remove it.")
        return state

    def remove_checkpoint(self, path: str | Path) -> None:
        """Delete the folder."""
        shutil.rmtree(path, ignore_errors=True)


def checkpoints(folder: str | Path) -> list[Path]:
    """The checkpoints of a run (``step=N.ckpt``), the oldest first."""
    return sorted(Path(folder).glob("step=*.ckpt"), key=step_of)


def step_of(path: Path) -> int:
    """The step N of a checkpoint ``step=N.ckpt``; -1 where the name has none."""
    digits = path.name.removeprefix("step=").removesuffix(".ckpt")
    return int(digits) if digits.isdecimal() else -1


def newest(folder: str | Path) -> Path | None:
    """The last whole checkpoint in ``folder``, or None where there is none at all.

    One that is damaged is passed over for the one before it, with a warning. Raises `InputError`
    where all are.
    """
    found = checkpoints(folder)
    for path in reversed(found):
        fault = broken(path)
        if not fault:
            return path
        warnings.warn(f"The checkpoint {path} is not whole ({fault}).", stacklevel=2)
    if found:
        raise InputError(f"No checkpoint in {folder} is whole; remove them to start again.")
    return None


def broken(path: Path) -> str:
    """What a checkpoint lacks: a file, or the bytes that were written; "" when it is whole."""
    try:
        hashes = json.loads((path / "sha256.json").read_text())
        changed = [name for name in FILES if _digest(path / name) != hashes[name]]
    except (OSError, ValueError, KeyError, TypeError) as fault:
        return f"{type(fault).__name__} {fault}"
    return f"the sha256 of {changed[0]} differs" if changed else ""


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
