"""The files of a saved model: written whole, and read back only if every byte is as it was."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as parse_tensors

from sciddm.errors import InputError

FORMAT = 1
FILES = ("model.json", "codec.json", "weights.safetensors", "card.md")


def write(folder: Path, parts: Mapping[str, bytes]) -> None:
    folder.mkdir()
    for name, data in parts.items():
        with open(folder / name, "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())


def read(folder: Path) -> dict[str, bytes]:
    if not folder.is_dir():
        raise InputError(f"There is no model folder {folder}; expected a folder with model.json.")
    path = folder / "manifest.json"
    if not path.is_file() or path.is_symlink():
        raise InputError(f"{folder} has no manifest.json; it is not a whole saved model.")
    manifest = parsed(path.read_bytes(), path)
    hashes = manifest.get("sha256")
    if not isinstance(hashes, dict) or sorted(hashes) != sorted(FILES):
        raise InputError(f"{path} does not list {', '.join(FILES)}; it is not a saved model's.")
    parts = {}
    for name in FILES:
        file = folder / name
        if not file.is_file() or file.is_symlink():
            raise InputError(f"{file} is missing or a link; copy the whole folder again.")
        parts[name] = file.read_bytes()
        if name.endswith("safetensors") and _pickled(parts[name]):
            raise InputError(f"{file} is a pickle, which could run code; expected safetensors.")
        if hashlib.sha256(parts[name]).hexdigest() != hashes[name]:
            raise InputError(f"{file} is not the file that was saved (sha256 differs); copy again.")
    return parts


def _pickled(data: bytes) -> bool:
    """Whether a file begins like a pickle or a zip; the length of a header may begin so too."""
    return data[:1] in (b"P", b"\x80") and int.from_bytes(data[:8], "little") > len(data)


def parsed(data: bytes, path: Path) -> dict[str, Any]:
    try:
        tree = json.loads(data)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as fault:
        raise InputError(f"{path} is not JSON: {fault}") from None
    if not isinstance(tree, dict):
        raise InputError(f"{path} is not a JSON object.")
    if tree.get("format") != FORMAT:
        raise InputError(
            f"{path} has format {tree.get('format')!r}; this sciddm reads format {FORMAT}."
        )
    return tree


def tensors_of(data: bytes, path: Path) -> dict[str, torch.Tensor]:
    try:
        tensors = parse_tensors(data)
    except Exception as fault:  # safetensors raises its own class, not exported everywhere
        raise InputError(f"{path} is not a safetensors file: {fault}") from None
    check_finite(tensors, path)
    return tensors


def check_finite(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise InputError(f"{path}: tensor {name!r} holds NaN or infinite values.")


def tensor_names(node: object) -> set[str]:
    """Names of all tensors that a tree refers to."""
    if isinstance(node, list):
        return set().union(*map(tensor_names, node))
    if not isinstance(node, dict):
        return set()
    own = {v for k, v in node.items() if k in ("tensor", "array") and isinstance(v, str)}
    state = node.get("state")
    own |= set(state.values()) if isinstance(state, dict) else set()
    return own.union(*map(tensor_names, node.values()))


def class_names(node: object) -> set[str]:
    """Names of all classes in a tree."""
    if isinstance(node, list):
        return set().union(*map(class_names, node))
    if not isinstance(node, dict):
        return set()
    own = {str(node["class"])} if "class" in node and "args" in node else set()
    return own.union(*map(class_names, node.values()))
