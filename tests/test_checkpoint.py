"""Training states on disk: what goes in comes out to the bit, or is refused; never a pickle."""

from __future__ import annotations

import json
import math
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sciddm import checkpoint
from sciddm.checkpoint import SafeCheckpoints, broken, checkpoints, newest
from sciddm.errors import InputError, RunError

STATE: dict[str, Any] = {
    "epoch": 0,
    "loops": {"fit": {"done": True, "limits": (3, None, -1.5)}},
    "optimizer": [{"state": {0: {"exp_avg": torch.arange(6.0).view(2, 3)}, 1: {}}}],
    "odd numbers": [math.inf, -math.inf, 1e-320, 2**62, True, 'a \u00e9 " $'],
    "$": "a key like the marks of the format",
    "types": [
        torch.tensor(3),
        torch.tensor([True, False]),
        torch.randn(3, dtype=torch.float64),
        torch.randn(2, 2).to(torch.bfloat16),
        torch.zeros(0, 4),
        torch.randn(4, 5).T,
    ],
}


def save(state: dict[str, Any], path: Path) -> Path:
    SafeCheckpoints().save_checkpoint(state, path)
    return path


def load(path: Path) -> dict[str, Any]:
    return SafeCheckpoints().load_checkpoint(path)


def equal(a: object, b: object) -> bool:
    """The same types and values, tensors to the bit."""
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict) and isinstance(b, dict):
        return list(a) == list(b) and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


def test_a_state_comes_back_with_its_types(tmp_path: Path) -> None:
    path = save(STATE, tmp_path / "step=1.ckpt")
    assert equal(load(path), STATE)
    assert not equal(load(path) | {"epoch": 1.0}, STATE)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step=1.ckpt"]
    assert broken(path) == ""


def test_nan_comes_back(tmp_path: Path) -> None:
    assert math.isnan(load(save({"best": math.nan}, tmp_path / "a.ckpt"))["best"])


def test_a_view_is_stored_without_what_it_is_a_view_of(tmp_path: Path) -> None:
    path = save({"small": torch.zeros(1_000_000)[:10]}, tmp_path / "a.ckpt")
    assert (path / "tensors.safetensors").stat().st_size < 1000


def test_two_names_of_one_tensor_do_not_share_what_comes_back(tmp_path: Path) -> None:
    one = torch.ones(3)
    state = load(save({"a": one, "b": one}, tmp_path / "a.ckpt"))
    state["a"].add_(1)
    assert torch.equal(state["b"], one)


@pytest.mark.parametrize(
    "value", [{1, 2}, object(), print, 1j, b"bytes"], ids=lambda v: type(v).__name__
)
def test_what_is_no_data_is_refused_and_the_old_state_stays(tmp_path: Path, value: object) -> None:
    path = save({"epoch": 1}, tmp_path / "a.ckpt")
    with pytest.raises(RunError, match=f"holds a {type(value).__name__}"):
        save({"epoch": 2, "odd": value}, path)
    assert load(path) == {"epoch": 1}


@pytest.mark.parametrize("moment", ["save_file", "_digest"])
def test_a_write_that_fails_leaves_the_old_state_whole(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save({"epoch": 1, "x": torch.ones(2)}, tmp_path / "a.ckpt")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, moment, full)
        with pytest.raises(OSError, match="No space"):
            save({"epoch": 2, "x": torch.ones(2)}, path)
    assert load(path)["epoch"] == 1
    assert load(save({"epoch": 3}, path)) == {"epoch": 3}
    assert [p.name for p in tmp_path.iterdir()] == ["a.ckpt"]


def flip(file: Path, at: float, bit: int) -> None:
    data = bytearray(file.read_bytes())
    data[int(at * (len(data) - 1))] ^= 1 << bit
    file.write_bytes(data)


def cut(file: Path, at: float) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: int(at * (len(data) - 1))])


NAMES = ("state.json", "tensors.safetensors", "sha256.json")
PLACES = (0.0, 0.001, 0.13, 0.5, 0.77, 0.999, 1.0)
DAMAGE: dict[str, Callable[[Path], object]] = {
    **{f"bit {b} at {at} of {n}": lambda p, n=n, at=at, b=b: flip(p / n, at, b)
       for n in NAMES for at in PLACES for b in (0, 6)},
    **{f"{n} cut at {at}": lambda p, n=n, at=at: cut(p / n, at) for n in NAMES for at in PLACES},
    **{f"no {n}": lambda p, n=n: (p / n).unlink() for n in NAMES},
    "the tensors of another": lambda p: shutil.copy(
        save({"x": torch.zeros(4)}, p.parent / "other") / "tensors.safetensors", p
    ),
    "a file in its place": lambda p: (shutil.rmtree(p), p.write_text("x")),
    "an empty folder in its place": lambda p: (shutil.rmtree(p), p.mkdir()),
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    for step in (4, 10):
        save(STATE | {"global_step": step}, folder / f"step={step}.ckpt")
    return folder


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_state_is_refused_and_the_one_before_is_taken(
    damage: Callable[[Path], object], run: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    bad = folder / "step=10.ckpt"
    damage(bad)
    with pytest.raises(InputError, match="step=10.ckpt") as error:
        load(bad)
    assert "\n" not in str(error.value)
    with pytest.warns(UserWarning, match="step=10.ckpt is not whole"):
        assert newest(folder) == folder / "step=4.ckpt"
    damage(folder / "step=4.ckpt")
    with warnings.catch_warnings(), pytest.raises(InputError, match="No checkpoint"):
        warnings.simplefilter("ignore")
        newest(folder)


def test_the_newest_is_by_number_and_what_is_half_written_does_not_count(tmp_path: Path) -> None:
    assert newest(tmp_path) is None and newest(tmp_path / "absent") is None
    for step in (900, 1000, 90):
        save({"global_step": step}, tmp_path / f"step={step}.ckpt")
    shutil.copytree(tmp_path / "step=90.ckpt", tmp_path / ".step=2000.ckpt.partial")
    save({"weights": torch.ones(1)}, tmp_path / "best.ckpt")
    found = newest(tmp_path)
    assert found is not None and load(found)["global_step"] == 1000
    assert [p.name for p in checkpoints(tmp_path)] == [f"step={n}.ckpt" for n in (90, 900, 1000)]
    SafeCheckpoints().remove_checkpoint(found)
    assert newest(tmp_path) == tmp_path / "step=900.ckpt"


def test_a_state_of_pickles_is_refused_unread(tmp_path: Path) -> None:
    """Even with hashes that fit: what is read is JSON and tensors."""
    marker = tmp_path / "marker"

    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (marker,))  # type: ignore[return-value]

    path = save({"x": torch.ones(1)}, tmp_path / "a.ckpt")
    torch.save({"x": Bomb()}, path / "tensors.safetensors")
    hashes = {name: checkpoint._digest(path / name) for name in NAMES[:2]}
    (path / "sha256.json").write_text(json.dumps(hashes))
    with pytest.raises(InputError, match="cannot be read"):
        load(path)
    assert not marker.exists()
    shutil.copy(path / "tensors.safetensors", tmp_path / "bomb.pt")
    torch.load(tmp_path / "bomb.pt", weights_only=False)
    assert marker.exists()  # it was a bomb
