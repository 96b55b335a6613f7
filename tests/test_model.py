"""Saved models: data that come back to the bit, or one line that says what is wrong with them."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import shutil
import struct
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from safetensors.torch import load as parse
from safetensors.torch import save as pack
from torch import Tensor

import sciddm as sd
from sciddm import model as models
from sciddm import recipe
from sciddm.data import disk, split
from sciddm.data.codec import Normaliser
from sciddm.denoise import Context, Denoiser, Gaussian, Preconditioned
from sciddm.errors import InputError, RunError
from sciddm.nn import SpectralOperator
from sciddm.process import VE
from sciddm.solve import Diffusion, Heun

ROOT = Path(__file__).parents[1]
FILES = ("model.json", "codec.json", "weights.safetensors", "card.md", "manifest.json")


def shelf(kind: str, name: str) -> Any:  # noqa: ANN401
    return recipe.load(ROOT / kind / f"{name}.py")


@pytest.fixture(scope="module")
def model() -> sd.Model:
    """Everything a model can hold: a network on a Gaussian base, a solver behind, notes, a card."""
    ds = shelf("datasets", "poisson").fields(40, 9)
    built: sd.Model = shelf("models", "poisson").build(ds, width=4, modes=3, blocks=1, steps=6)
    for weight in built.sampler.denoiser.parameters():
        torch.nn.init.normal_(weight, std=0.1)  # a network that says something
    notes = {"training": {"steps": 3, "loss": 0.1 + 0.2}, "who": "\u00e9"}
    return replace(built, notes=notes, card="# A card\n\nwith \u2265 2 lines\n")


@pytest.fixture(scope="module")
def saved(model: sd.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model.save(tmp_path_factory.mktemp("models") / "poisson")


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(saved, tmp_path / "model"))


@pytest.fixture(scope="module")
def other(model: sd.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same architecture with other weights."""
    again = sd.load(model.save(tmp_path_factory.mktemp("models") / "other"))
    for weight in again.sampler.denoiser.parameters():
        weight.data.add_(1)
    return again.save(tmp_path_factory.mktemp("models") / "other")


def listing(folder: Path) -> dict[str, bytes]:
    return {f.name: f.read_bytes() for f in folder.iterdir()}


def stations(model: sd.Model) -> sd.Observed:
    rng = np.random.default_rng(1)
    at = {d: ("station", rng.uniform(0, 1, 7)) for d in ("y", "x")}
    values = xr.DataArray(1e-3 * rng.standard_normal(7), dims="station", coords=at, name="solution")
    return sd.Observed(values, std=1e-4)


def test_a_model_comes_back_whole(model: sd.Model, saved: Path) -> None:
    again = sd.load(saved)
    assert (again.task, again.notes, again.card) == (model.task, model.notes, model.card)
    assert again.codec.variables == model.codec.variables
    assert again.codec.grid.shape == (9, 9) and again.codec.grid.dims == ("y", "x")
    assert again.sampler.solver == model.sampler.solver and again.sampler.steps == 6
    drawn = sd.generate(model, members=3, seed=4)
    xr.testing.assert_identical(sd.generate(again, members=3, seed=4), drawn)
    seen = stations(model)
    for draw in (sd.recover, sd.krige):
        xr.testing.assert_identical(draw(again, seen, members=3), draw(model, seen, members=3))
    assert not any(p.requires_grad for p in again.sampler.denoiser.parameters())


def test_saving_again_gives_the_same_bytes(model: sd.Model, saved: Path, tmp_path: Path) -> None:
    assert listing(model.save(tmp_path / "a")) == listing(saved)
    assert listing(sd.load(saved).save(tmp_path / "b")) == listing(saved)
    assert sorted(listing(saved)) == sorted(FILES)


def test_the_weights_are_stored_once_and_without_slack(model: sd.Model, tmp_path: Path) -> None:
    """Also those that are a view of something larger."""
    inner = model.codec.inner  # type: ignore[attr-defined]
    large = np.zeros((1000, 1, 1))
    codec = replace(model.codec, inner=replace(inner, mean=large[:1]))  # type: ignore[type-var]
    folder = replace(model, codec=codec).save(tmp_path / "m")
    data = (folder / "weights.safetensors").read_bytes()
    header = 8 + struct.unpack("<Q", data[:8])[0]
    tensors = parse(data)
    assert len(data) == header + sum(t.numel() * t.element_size() for t in tensors.values())
    digests = [
        hashlib.sha256(t.numpy().tobytes()).digest() for t in tensors.values() if t.numel() > 30
    ]
    assert len(set(digests)) == len(digests)


def test_a_model_on_another_grid_keeps_all_else(model: sd.Model) -> None:
    finer = model.at({"y": 17, "x": 17})
    assert finer.codec.grid.shape == (17, 17) and model.codec.grid.shape == (9, 9)
    assert finer.sampler is model.sampler
    assert dict(sd.generate(finer, members=1).sizes) == {"member": 1, "y": 17, "x": 17}


def test_a_model_that_is_tied_to_its_grid_says_so() -> None:
    """A covariance measured on one grid: refused before a draw, in one line."""
    ds = shelf("datasets", "darcy").fields(40, 9)
    darcy = shelf("models", "darcy").build(ds, width=4, modes=3, blocks=1, eofs=(6, 4))
    assert darcy.at({"y": 9}).codec.grid.shape == (9, 9)
    for act in (lambda: darcy.at({"y": 17}), lambda: sd.generate(darcy, sizes={"y": 17})):
        with pytest.raises(InputError, match=r"tied to its grid \(9, 9\).*got \(17, 9\)"):
            act()


def test_the_gaussian_inside(model: sd.Model) -> None:
    denoiser = model.sampler.denoiser
    assert isinstance(denoiser, Preconditioned) and isinstance(denoiser.base, Gaussian)
    assert model.gaussian is denoiser.base
    bare = replace(model, sampler=Diffusion(Preconditioned(denoiser.backbone, VE())), moments=None)
    assert bare.gaussian is None
    assert replace(bare, moments=denoiser.base).gaussian is denoiser.base
    with pytest.raises(InputError, match="no Gaussian"):
        sd.krige(bare, stations(model))


# ---------------------------------------------------------------------------- damage


def rehash(folder: Path) -> None:
    """Make the manifest fit what is there: a forger would."""
    hashes = {n: hashlib.sha256((folder / n).read_bytes()).hexdigest() for n in FILES[:4]}
    (folder / "manifest.json").write_text(json.dumps({"format": 1, "sha256": hashes}))


def flip(file: Path, at: float, bit: int) -> None:
    data = bytearray(file.read_bytes())
    data[int(at * (len(data) - 1))] ^= 1 << bit
    file.write_bytes(data)


def cut(file: Path, at: float) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: int(at * (len(data) - 1))])


def link(file: Path) -> None:
    target = file.with_name("elsewhere")
    file.rename(target)
    file.symlink_to(target)


def with_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


PLACES = (0.0, 0.003, 0.21, 0.5, 0.83, 1.0)
DAMAGE: dict[str, tuple[str, Callable[[Path], object]]] = {
    # a manifest that was changed makes the file it speaks of the wrong one
    **{f"bit {b} at {at} of {n}": (n.split(".")[0].replace("manifest", "."),
                                   lambda p, n=n, at=at, b=b: flip(p / n, at, b))
       for n in FILES for at in PLACES for b in (0, 5)},
    **{f"{n} cut at {at}": (n.split(".")[0], lambda p, n=n, at=at: cut(p / n, at))
       for n in FILES for at in PLACES},
    **{f"no {n}": (n, lambda p, n=n: (p / n).unlink()) for n in FILES},
    **{f"{n} a link": (n, lambda p, n=n: link(p / n)) for n in FILES},
    **{f"{n} a folder": (n, lambda p, n=n: with_folder(p / n)) for n in FILES},
}  # fmt: skip


def refused(folder: Path, said: str) -> None:
    """One line, in less than a second of work, about this folder."""
    start = time.process_time()
    with pytest.raises(InputError, match=said) as error:
        sd.load(folder)
    assert time.process_time() - start < 1
    text = str(error.value)
    assert "\n" not in text and str(folder) in text and len(text) < 600


@pytest.mark.parametrize(("said", "damage"), DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_folder_is_refused(
    said: str, damage: Callable[[Path], object], folder: Path
) -> None:
    damage(folder)
    refused(folder, said)


def test_every_bit_of_the_manifest_counts(folder: Path) -> None:
    """It alone has no hash."""
    file = folder / "manifest.json"
    data = file.read_bytes()
    for at in range(0, len(data), 7):
        for bit in range(8):
            changed = bytearray(data)
            changed[at] ^= 1 << bit
            file.write_bytes(changed)
            with pytest.raises(InputError):
                sd.load(folder)
    file.write_bytes(data)
    sd.load(folder)


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_another_model_is_refused(name: str, folder: Path, other: Path) -> None:
    if (other / name).read_bytes() == (folder / name).read_bytes():
        (folder / name).write_bytes((other / name).read_bytes() + b" ")
    else:
        shutil.copy(other / name, folder / name)
    refused(folder, "sha256 differs|not the file")


def test_what_is_no_folder_of_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no model folder"):
        sd.load(tmp_path / "absent")
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="no model folder"):
        sd.load(tmp_path / "file")
    with pytest.raises(InputError, match="has no manifest.json"):
        sd.load(tmp_path)


# ---------------------------------------------------------------------------- forgery


def tensors(change: Callable[[dict[str, Tensor]], object]) -> Callable[[Path], None]:
    def act(folder: Path) -> None:
        held = parse((folder / "weights.safetensors").read_bytes())
        change(held)
        (folder / "weights.safetensors").write_bytes(pack(held))

    return act


def tree(name: str, change: Callable[[Any], object]) -> Callable[[Path], None]:
    def act(folder: Path) -> None:
        node = json.loads((folder / name).read_text())
        change(node)
        (folder / name).write_text(json.dumps(node))

    return act


def put(name: str, data: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(data)


def header(fields: dict[str, Any], body: bytes = b"\0" * 16, length: int | None = None) -> bytes:
    text = json.dumps(fields).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def f32(start: int, stop: int, shape: list[int]) -> dict[str, Any]:
    return {"dtype": "F32", "shape": shape, "data_offsets": [start, stop]}


def backbone(t: Any) -> dict[str, Any]:  # noqa: ANN401
    found: dict[str, Any] = t["sampler"]["args"]["denoiser"]["args"]["backbone"]
    return found


def argument(**new: object) -> Callable[[Path], None]:
    return tree(M, lambda t: backbone(t)["args"].update(new))


def described(**new: object) -> Callable[[Path], None]:
    return tree(M, lambda t: backbone(t).update(new))


def whole(**new: object) -> Callable[[Path], None]:
    return tree(M, lambda t: t.update(new))


W, M, C = "weights.safetensors", "model.json", "codec.json"
WEIGHT = "sampler.denoiser.backbone.lift.weight"


def zipped() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("data.pkl", b"\0" * 10_000_000)
    return out.getvalue()


def arrays() -> bytes:
    out = io.BytesIO()
    np.savez(out, weight=np.zeros(3))
    return out.getvalue()


def nested(depth: int) -> bytes:
    return b'{"format": 1, "task": ' + b'{"a":' * depth + b"1" + b"}" * depth + b"}"


FORGED: dict[str, tuple[str, Callable[[Path], object]]] = {
    # tensors
    "a tensor missing": (f"{WEIGHT}' is missing", tensors(lambda t: t.pop(WEIGHT))),
    "a tensor too many": (
        "holds a tensor 'extra'",
        tensors(lambda t: t.update(extra=t[WEIGHT] * 2)),
    ),
    "a tensor of another shape": (
        "'lift.weight' is missing, extra or of another shape",
        tensors(lambda t: t.update({WEIGHT: torch.zeros(3, 2)})),
    ),
    "a tensor of another type": (
        "'lift.weight'",
        tensors(lambda t: t.update({WEIGHT: t[WEIGHT].double()})),
    ),
    "a weight of nan": (
        f"{WEIGHT}' holds NaN",
        tensors(lambda t: t[WEIGHT].view(-1)[0].fill_(np.nan)),
    ),
    "an infinite weight": (
        f"{WEIGHT}' holds NaN or inf",
        tensors(lambda t: t[WEIGHT].view(-1)[3].fill_(-np.inf)),
    ),
    "an s.d. below 0": (
        "not finite and positive",
        tensors(lambda t: t["codec.inner.std"].neg_()),
    ),
    "statistics of another grid": (
        "statistics of",
        tensors(lambda t: t.update({"codec.inner.mean": torch.zeros(2, 1, 1).double()})),
    ),
    # files of another kind
    "a pickle": ("is a pickle", put(W, pickle.dumps({"a": 1}))),
    **{f"a pickle of protocol {p}": (
        "pickle|not a safetensors", put(W, pickle.dumps({"a": list(range(99))}, p))
    ) for p in range(6)},
    "a zip": ("is a pickle|not a safetensors", put(W, zipped())),
    "an npz": ("is a pickle|not a safetensors", put(W, arrays())),
    "nothing": ("not a safetensors", put(W, b"")),
    "seven bytes": ("not a safetensors", put(W, b"\0" * 7)),
    "a header beyond the file": ("not a safetensors", put(W, header({}, length=2**40))),
    "a header of 2^63": ("not a safetensors", put(W, header({}, length=2**63))),
    "overlapping tensors": (
        "not a safetensors",
        put(W, header({"a": f32(0, 12, [3]), "b": f32(8, 16, [2])})),
    ),
    "an offset below 0": ("not a safetensors", put(W, header({"a": f32(-4, 12, [4])}))),
    "an offset beyond the end": ("not a safetensors", put(W, header({"a": f32(0, 400, [100])}))),
    "a shape that is no size": ("not a safetensors", put(W, header({"a": f32(0, 16, [3])}))),
    "a shape that overflows": ("not a safetensors", put(W, header({"a": f32(0, 16, [2**62, 16])}))),
    "a header that is no JSON": (
        "not a safetensors",
        put(W, struct.pack("<Q", 4) + b"{{{{" + b"\0" * 8),
    ),
    "a description of bytes": ("not JSON", put(M, b"\xff\xfe\x00")),
    "a description of nothing": ("not JSON", put(M, b"")),
    "a description that is a list": ("not a JSON object", put(M, b"[1]")),
    "a description without an end": ("not JSON|describes no model", put(M, nested(100_000))),
    "a description that is deep": ("describes no model|does not offer", put(M, nested(900))),
    "a card that is no text": ("describes no model", put("card.md", b"\xff\xfe\xfa")),
    # versions
    "a description of format 2": (
        "model.json has format 2; this sciddm reads format 1",
        whole(format=2),
    ),
    "a codec of format 0": ("codec.json has format 0", tree(C, lambda t: t.update(format=0))),
    "a description of no format": ("has format None", tree(M, lambda t: t.pop("format"))),
    # descriptions
    "no sampler": ("describes no model", tree(M, lambda t: t.pop("sampler"))),
    "no codec": ("describes no model", tree(C, lambda t: t.pop("codec"))),
    "an unknown class": (
        "'SpectralOperater', which sciddm does not offer. Did you mean 'SpectralOperator'",
        described(**{"class": "SpectralOperater"}),
    ),
    "no class": ("'None', which sciddm", tree(M, lambda t: backbone(t).pop("class"))),
    "a class that is a list": ("which sciddm does not offer", described(**{"class": ["x"]})),
    "an unknown argument": (
        "argument 'widht' it does not take. Did you mean 'width'",
        argument(widht=4),
    ),
    "a missing argument": (
        "SpectralOperator cannot be built.*'inputs'",
        tree(M, lambda t: backbone(t)["args"].pop("inputs")),
    ),
    "arguments that are a list": ("no arguments by name", described(args=[1])),
    "an argument of text": ("cannot be built.*type str", argument(width="4")),
    "another architecture": ("do not fit its description", argument(width=5)),
    "a width of 10^9": ("larger than its weights", argument(width=10**9)),
    "a width of 10^30": (
        "larger than its weights|describes no model",
        argument(width=10**30),
    ),
    "modes of 10^6": ("larger than its weights", argument(modes=[10**6] * 2)),
    "10^5 blocks": ("larger than its weights", argument(blocks=10**5)),
    "a codec for a sampler": (
        "expected a Diffusion, Forecaster, Phases or SeriesSampler, got Task",
        tree(M, lambda t: t.update(sampler=t["task"])),
    ),
    "a task for a codec": (
        "expected a Codec, got View",
        tree(C, lambda t: t.update(codec={"class": "View", "args": {"variables": []}})),
    ),
    "a task that is a number": ("expected a Task, got int", whole(task=3)),
    "moments of no covariance": (
        "knows no covariance",
        tree(M, lambda t: t.update(moments=t["task"])),
    ),
    "a sampler of nothing": (
        "lacks a denoiser",
        tree(M, lambda t: t["sampler"]["args"]["solver"].update({"class": "Cosine", "args": {}})),
    ),
    "a state of nothing": ("describes no model", described(state=3)),
    "a tensor by number": (
        "tensor 3 is missing",
        tree(M, lambda t: backbone(t)["state"].update({"lift.weight": 3})),
    ),
    "a tensor by list": (
        r"tensor \[\] is missing",
        tree(M, lambda t: backbone(t)["state"].update({"lift.weight": []})),
    ),
    "notes that are a number": ("describes no model", whole(notes=3)),
}  # fmt: skip


@pytest.mark.parametrize(("said", "forge"), FORGED.values(), ids=FORGED.keys())
def test_a_forged_folder_is_refused(
    said: str, forge: Callable[[Path], object], folder: Path
) -> None:
    """The hashes fit; what they vouch for does not."""
    forge(folder)
    rehash(folder)
    refused(folder, said)


def test_a_forged_folder_that_changes_nothing_loads(folder: Path) -> None:
    """The forger's tools leave a whole folder whole."""
    tree(M, lambda t: None)(folder)
    tensors(lambda t: None)(folder)
    rehash(folder)
    sd.load(folder)


@pytest.mark.parametrize("length", [0x0280, 0x0480, 0x0580, 0x4B50])
def test_a_header_whose_length_looks_like_a_pickle_is_none(length: int, folder: Path) -> None:
    """640 bytes of header begin like a pickle, 19,280 like a zip."""
    data = (folder / W).read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    text = json.loads(data[8 : 8 + size])
    packed = json.dumps(text, separators=(",", ":")).encode()
    if len(packed) > length:
        small = header({"a": f32(0, 16, [4])}, length=length)[8:]
        pad = b" " * (length - len(small) + 16)
        (folder / W).write_bytes(struct.pack("<Q", length) + small[:-16] + pad + small[-16:])
        rehash(folder)
        refused(folder, "tensor '.*' is missing")  # it was read
        return
    (folder / W).write_bytes(struct.pack("<Q", length) + packed.ljust(length) + data[8 + size :])
    rehash(folder)
    sd.load(folder)


# ---------------------------------------------------------------------------- attack


class Bomb:
    """Touches a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        return (Path.touch, (self.marker,))


NAMES = (
    "os.system", "posix.system", "builtins.eval", "eval", "exec", "__import__", "subprocess.Popen",
    "Path", "pathlib.Path.touch", "sciddm.verbs.make", "torch.load", "Encoder", "Model", "type",
    "object", "../../Model", "", "Diffusion\n", "diffusion", "__class__", "Task.__init__",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_class_that_is_not_ours_is_not_run(name: str, folder: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    for args in (
        {"command": f"touch {marker}"},
        {"self": str(marker)},
        {"path": str(marker), "args": ["touch", str(marker)]},
        {},
    ):
        node = {"class": name, "args": args, "state": {}}
        for where in ("task", "sampler", "moments"):
            tree(M, lambda t, w=where, n=node: t.update({w: n}))(folder)
        rehash(folder)
        before = set(sys.modules)
        refused(folder, "does not offer")
        assert set(sys.modules) == before and not marker.exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model"]


@pytest.mark.parametrize("name", [*FILES, "__init__.py", "data.pkl", "conftest.py"])
def test_a_pickle_or_a_script_anywhere_is_not_run(name: str, folder: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    script = f"import pathlib\npathlib.Path({str(marker)!r}).touch()\n".encode()
    for data in (pickle.dumps(Bomb(marker)), script):
        (folder / name).write_bytes(data)
        if name not in ("manifest.json", "card.md") and name in FILES:
            rehash(folder)
        if name in FILES and name != "card.md":
            refused(folder, name.split(".")[0])
        elif name in FILES:
            refused(folder, "sha256 differs")
        else:
            sd.load(folder)  # a file that nothing names is nothing
        assert not marker.exists()
    pickle.loads(pickle.dumps(Bomb(marker)))
    assert marker.exists()  # it was a bomb


PATHS = ("../../outside", "/etc/passwd", "a/../../b", "..\\..\\outside", "~/x", "\u0000", "con")


@pytest.mark.parametrize("path", PATHS)
def test_a_name_that_is_a_path_leads_nowhere(path: str, folder: Path, tmp_path: Path) -> None:
    """As a tensor's name it is a name; in the manifest it is no file of a model."""
    tensors(lambda t: t.update({path: t.pop(WEIGHT)}))(folder)
    tree(M, lambda t: backbone(t)["state"].update({"lift.weight": path}))(folder)
    rehash(folder)
    sd.load(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["sha256"][path] = manifest["sha256"].pop("card.md")
    (folder / "manifest.json").write_text(json.dumps(manifest))
    refused(folder, "does not list")
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


# ---------------------------------------------------------------------------- saving


@pytest.mark.parametrize("nth", range(5))
@pytest.mark.parametrize("kind", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_save_that_fails_leaves_the_old_folder_whole(
    nth: int, kind: BaseException, model: sd.Model, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, count = listing(folder), [0]

    def fsync(number: int) -> None:
        count[0] += 1
        if count[0] > nth:
            raise kind

    monkeypatch.setattr(models.saved.os, "fsync", fsync)
    with pytest.raises(RunError if isinstance(kind, OSError) else KeyboardInterrupt):
        replace(model, card="another").save(folder, overwrite=True)
    with pytest.raises(RunError if isinstance(kind, OSError) else KeyboardInterrupt):
        model.save(folder.parent / "new")
    assert listing(folder) == before
    assert [p.name for p in folder.parent.iterdir()] == ["model"]


def test_a_swap_that_fails_leaves_the_old_folder_whole(
    model: sd.Model, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, rename = listing(folder), disk.os.rename

    def refuse(old: Path, new: Path) -> None:
        if Path(old).name.endswith(".partial"):
            raise OSError(13, "Permission denied")
        rename(old, new)

    monkeypatch.setattr(disk.os, "rename", refuse)
    with pytest.raises(RunError, match="Permission denied"):
        replace(model, card="another").save(folder, overwrite=True)
    assert listing(folder) == before
    assert [p.name for p in folder.parent.iterdir()] == ["model"]


def test_a_model_replaces_a_model_when_it_is_said_and_nothing_else(
    model: sd.Model, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="exists; choose another or say overwrite"):
        model.save(folder)
    replace(model, card="another").save(folder, overwrite=True)
    assert sd.load(folder).card == "another"
    mine = tmp_path / "thesis"
    mine.mkdir()
    (mine / "chapter.tex").write_text("x")
    with pytest.raises(InputError, match="is no saved model; it is not replaced"):
        model.save(mine, overwrite=True)
    with pytest.raises(InputError, match="is no saved model"):
        model.save(mine / "chapter.tex", overwrite=True)
    assert (mine / "chapter.tex").read_text() == "x"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model", "thesis"]


class Foreign(Denoiser):
    """A denoiser of the user's."""

    def __init__(self, process: VE) -> None:
        torch.nn.Module.__init__(self)
        self.process = process

    def forward(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        return 0 * x_t


def broken(model: sd.Model) -> sd.Model:
    ruined = sd.Model(model.task, model.codec, replace(model.sampler, denoiser=Preconditioned(
        SpectralOperator(1, 1, (2, 2), 4, 1), VE())))  # fmt: skip
    next(ruined.sampler.denoiser.parameters()).data.fill_(np.nan)
    return ruined


UNSAVABLE: dict[str, tuple[str, Callable[[sd.Model], sd.Model]]] = {
    "a class of the user's": (
        "with a Foreign cannot be saved",
        lambda m: replace(m, sampler=replace(m.sampler, denoiser=Foreign(VE()))),
    ),
    "weights of nan": ("holds NaN", broken),
}


@pytest.mark.parametrize(("said", "change"), UNSAVABLE.values(), ids=UNSAVABLE.keys())
def test_what_could_not_be_loaded_is_not_saved(
    said: str, change: Callable[[sd.Model], sd.Model], model: sd.Model, folder: Path
) -> None:
    before = listing(folder)
    with pytest.raises(InputError, match=said):
        change(model).save(folder, overwrite=True)
    assert listing(folder) == before and [p.name for p in folder.parent.iterdir()] == ["model"]


def test_each_recipe_of_the_shelf_is_savable(tmp_path: Path) -> None:
    """A field with a mask, a mean field and a solver with numbers of its own."""
    ds = shelf("datasets", "darcy").fields(24, 8)
    ds = ds.assign(coefficient=ds["coefficient"].where((ds["x"] < 0.8) | (ds["y"] < 0.8)))
    codec = Normaliser.fit(split.select(ds, "train"), ("coefficient",), "sample", pointwise=True)
    law = shelf("models", "gaussian_fit").build(ds[["solution"]]).gaussian
    sampler = Diffusion(law, Heun(), 5, 50.0, 0.1)
    kept = sd.Model(sd.Task(sd.View(("coefficient",))), codec, sampler)
    again = sd.load(kept.save(tmp_path / "m"))
    assert again.codec.mask is not None and not again.codec.mask.all()
    drawn = sd.generate(kept, members=2)
    xr.testing.assert_identical(sd.generate(again, members=2), drawn)
    assert bool(np.isnan(drawn["coefficient"][:, -1, -1]).all())
    assert drawn.attrs["network_evaluations"] == 9 and again.moments is None
