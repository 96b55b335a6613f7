"""Training: what a killed run becomes, which weights are kept, and when it stops."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import shutil
import signal
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from safetensors.torch import load_file
from torch import Tensor

import sciddm
from sciddm import fit, objective, recipe, train
from sciddm.basis import Cosine
from sciddm.calibrate import Scaled
from sciddm.checkpoint import SafeCheckpoints, checkpoints, newest, step_of
from sciddm.config import Train
from sciddm.covariance import LowRank, Matern, Spectral, White
from sciddm.data import split
from sciddm.data.codec import Grid, Normaliser, encoded
from sciddm.denoise import Context, CrossFitted, Gaussian, Preconditioned, denoising_loss
from sciddm.errors import InputError, RunError
from sciddm.model import Model
from sciddm.nn import SpectralOperator
from sciddm.process import VE, LogLinear
from sciddm.random import Streams
from sciddm.solve import Diffusion
from sciddm.task import Task, View

ROOT = Path(__file__).parents[1]
NUMBERS = Train(
    out="trained",
    run="run",
    steps=60,
    batch=8,
    learning_rate=3e-3,
    warmup=15,
    clip=0.5,
    ema=0.9,
    checkpoint_every=10,
    validation_every=5,
    accelerator="cpu",
)


@pytest.fixture(scope="module")
def darcy() -> xr.Dataset:
    """Two-phase Darcy flow, 40 samples at 12 x 12: 24 to train on, 8 to validate, 8 to test."""
    ds = recipe.load(ROOT / "datasets" / "darcy.py").fields(40, 12)
    return split.attach(ds, {"train": [0, 24], "validation": [24, 32], "test": [32, 40]})


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def untrained(ds: xr.Dataset) -> Model:
    build = recipe.load(ROOT / "models" / "darcy.py").build
    model: Model = build(ds, modes=4, width=6, blocks=1, eofs=(6, 4))
    return model


def weights(model: Model) -> dict[str, Tensor]:
    return dict(model.sampler.denoiser.state_dict())


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """To the bit."""
    return a.keys() == b.keys() and all(
        a[k].dtype == b[k].dtype and a[k].numpy().tobytes() == b[k].numpy().tobytes() for k in a
    )


def logged(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def whole(darcy: xr.Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Model]:
    """The run that nobody interrupts: its working folder, and what it made."""
    place, before = tmp_path_factory.mktemp("whole"), Path.cwd()
    os.chdir(place)
    try:
        return place, train.fit(untrained(darcy), darcy, NUMBERS)
    finally:
        os.chdir(before)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def in_a_step(step: int) -> None:
    """Kill in the forward pass of ``step``, half-way between two checkpoints."""
    loss = objective.denoising_loss

    def last_loss(*args: object, **options: object) -> Tensor:
        count[0] += 1
        if count[0] == step:
            die()
        return loss(*args, **options)  # type: ignore[arg-type]

    count = [0]
    objective.denoising_loss = last_loss  # type: ignore[assignment]


def in_a_write(name: str) -> None:
    """Kill when the file ``name`` of a checkpoint is on disk and the folder has no name yet."""
    rename = Path.rename

    def last_rename(self: Path, target: Path) -> Path:
        if Path(target).name == name:
            die()
        return rename(self, target)

    Path.rename = last_rename  # type: ignore[assignment, method-assign]


def in_a_removal() -> None:
    """Kill when a new checkpoint has its name and an older one is about to go."""
    SafeCheckpoints.remove_checkpoint = lambda self, path: die()  # type: ignore[method-assign]


def killed(arrange: Callable[[], None], ds: xr.Dataset) -> None:
    """Train in a process of its own until ``arrange`` kills it."""

    def body() -> None:
        arrange()
        train.fit(untrained(ds), ds, NUMBERS)

    process = multiprocessing.get_context("fork").Process(target=body)
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL


KILLS = {
    "in step 35": lambda: in_a_step(35 + 12 * 7),  # twelve noise levels a validation, seven of them
    "in the checkpoint of step 30": lambda: in_a_write("step=30.ckpt"),
    "after the checkpoint of step 30": in_a_removal,
    "in the best weights": lambda: in_a_write("best.ckpt"),
}


@pytest.mark.parametrize("arrange", KILLS.values(), ids=KILLS.keys())
def test_a_killed_run_resumed_is_the_uninterrupted_one_to_the_bit(
    arrange: Callable[[], None], darcy: xr.Dataset, whole: tuple[Path, Model], here: Path
) -> None:
    """Weights, average, optimiser and schedule; with warm-up, clipping and a running average."""
    killed(arrange, darcy)
    assert newest("run") is None or 0 < step_of(checkpoints("run")[-1]) < NUMBERS.steps
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model = train.fit(untrained(darcy), darcy, NUMBERS, resume=True)
    place, expected = whole
    assert same(weights(model), weights(expected))
    for name in ("best.ckpt", "step=60.ckpt"):
        ours, theirs = stored(here / "run" / name), stored(place / "run" / name)
        assert same(ours, theirs)  # the moments of Adam included
    keys = ("step", "validation", "by_level")
    ours, theirs = ([[v[k] for k in keys] for v in logged(p / "run")] for p in (here, place))
    assert ours == theirs
    assert [step_of(p) for p in checkpoints("run")] == [50, 60]


def stored(path: Path) -> dict[str, Tensor]:
    """Every tensor of a checkpoint but the clock."""
    found: dict[str, Tensor] = {}

    def walk(node: object, name: str) -> None:
        if isinstance(node, Tensor):
            found[name] = node
        for key, value in node.items() if isinstance(node, dict) else ():
            walk(value, f"{name}.{key}")
        for key, value in enumerate(node) if isinstance(node, list | tuple) else ():
            walk(value, f"{name}.{key}")

    walk(SafeCheckpoints().load_checkpoint(path), "")
    return {k: v for k, v in found.items() if not k.endswith(".seconds")}


def test_the_best_average_is_what_is_returned(darcy: xr.Dataset, whole: tuple[Path, Model]) -> None:
    place, model = whole
    losses = [float(str(v["validation"])) for v in logged(place / "run")]
    held = encoded(split.select(darcy, "validation"), model.codec, "sample")
    denoiser = model.sampler.denoiser
    start = untrained(darcy).sampler.denoiser
    assert isinstance(denoiser, Preconditioned) and isinstance(start, Preconditioned)
    with torch.no_grad():
        now = float(objective.validation_losses(denoiser, held, None)[1].mean())
        before = float(objective.validation_losses(start, held, None)[1].mean())
    assert now == min(losses) < before
    assert model.notes["training"]["validation_loss"] == round(now, 5)
    assert not any(p.requires_grad for p in denoiser.parameters())


def test_the_loss_on_new_fields_goes_down_at_most_noise_levels(
    darcy: xr.Dataset, here: Path
) -> None:
    """From the error of a unit Gaussian, 1 at each level: two hundred steps of two seconds."""
    numbers = replace(NUMBERS, steps=200, learning_rate=3e-2, validation_every=100)
    train.fit(untrained(darcy), darcy, numbers)
    levels = np.array(logged(here / "run")[-1]["by_level"])
    assert levels.mean() < 0.85 and levels.min() < 0.5
    assert (levels < 0.95).mean() > 0.6


def test_a_checkpoint_is_json_and_tensors_and_no_pickle(whole: tuple[Path, Model]) -> None:
    files = [f for f in (whole[0] / "run").rglob("*") if f.is_file()]
    assert len(files) == 3 * 3 + 1  # two states, the best weights, the log
    for file in files:
        data = file.read_bytes()
        assert not zipfile.is_zipfile(file) and data[:1] != b"\x80"
        if file.suffix == ".safetensors":
            assert load_file(file)
        elif file.suffix == ".json":
            json.loads(data)


SCRIPT = [5.0, 2.0, 3.0, 1.5, 9.0, 9.0, 9.0, 9.0]
"""A validation loss that rises, falls and rises again."""


@pytest.mark.parametrize(("patience", "last"), [(0, 16), (2, 12), (1, 6)])
def test_validation_chooses_the_weights_and_patience_stops(
    patience: int, last: int, darcy: xr.Dataset, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, Tensor]] = []

    def scripted(denoiser: Preconditioned, *_: object) -> tuple[Tensor, Tensor]:
        seen.append({k: v.clone() for k, v in denoiser.state_dict().items()})
        return torch.zeros(1), torch.tensor([SCRIPT[len(seen) - 1]])

    monkeypatch.setattr(objective, "validation_losses", scripted)
    numbers = replace(NUMBERS, steps=16, validation_every=2, patience=patience)
    model = train.fit(untrained(darcy), darcy, numbers)
    steps = [v["step"] for v in logged(here / "run")]
    assert steps == list(range(2, last + 1, 2))
    best = int(np.argmin(SCRIPT[: len(steps)]))
    assert same(weights(model), seen[best])


def test_the_average_is_the_exponential_one_of_the_weights(
    darcy: xr.Dataset, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It begins at the weights after the first step, as `AveragedModel` does."""
    path: list[Tensor] = []
    settle = train.Loop.settle

    def watched(self: train.Loop, step: int) -> None:
        path.append(self.module.backbone.lift.weight.detach().clone())
        settle(self, step)

    monkeypatch.setattr(train.Loop, "settle", watched)
    numbers = replace(NUMBERS, steps=4, warmup=0, validation_every=4, ema=0.75)
    model = train.fit(untrained(darcy), darcy, numbers)
    mean = path[0]
    for weight in path[1:]:
        mean = 0.75 * mean + 0.25 * weight
    assert len(path) == 4 and not torch.equal(path[0], path[3])
    torch.testing.assert_close(weights(model)["backbone.lift.weight"], mean)


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_state(
    darcy: xr.Dataset, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = replace(NUMBERS, steps=20, checkpoint_every=4, learning_rate=1e-3)
    loss, calls = objective.denoising_loss, [0]

    def poisoned(*args: object, **options: object) -> Tensor:
        calls[0] += 1
        value: Tensor = loss(*args, **options)  # type: ignore[arg-type]
        return value * torch.nan if calls[0] > 18 else value

    monkeypatch.setattr(objective, "denoising_loss", poisoned)
    with pytest.raises(RunError, match="not finite at step 6"):  # 12 calls were a validation's
        train.fit(untrained(darcy), darcy, numbers)
    monkeypatch.setattr(objective, "denoising_loss", loss)
    assert [step_of(p) for p in checkpoints("run")] == [4]
    assert all(bool(torch.isfinite(v).all()) for v in stored(here / "run" / "step=4.ckpt").values()
               if v.is_floating_point() and v.numel() > 1)  # fmt: skip
    assert same(
        weights(train.fit(untrained(darcy), darcy, numbers, resume=True)),
        weights(train.fit(untrained(darcy), darcy, replace(numbers, run="other"))),
    )


def test_weights_that_are_not_finite_are_not_kept(darcy: xr.Dataset, here: Path) -> None:
    numbers = replace(NUMBERS, steps=8, warmup=0, checkpoint_every=1, learning_rate=1e30)
    with pytest.raises(RunError, match="not finite at step"):
        train.fit(untrained(darcy), darcy, numbers)
    for path in checkpoints("run"):
        assert all(bool(torch.isfinite(v).all()) for k, v in stored(path).items() if "denois" in k)


def test_a_hole_in_the_data_is_no_loss(darcy: xr.Dataset, here: Path) -> None:
    broken = darcy.copy(deep=True)
    broken["solution"][7, 5, 5] = np.nan
    with pytest.raises((InputError, RunError), match="finite"):
        train.fit(untrained(broken), broken, replace(NUMBERS, steps=16))


OTHERS: dict[str, tuple[str, Callable[[Train], Train]]] = {
    "batch": ("batch = 4", lambda n: replace(n, batch=4)),
    "learning rate": ("learning_rate", lambda n: replace(n, learning_rate=1e-3)),
    "seed": ("seed", lambda n: replace(n, seed=1)),
    "steps": ("steps = 24", lambda n: replace(n, steps=24)),
}


@pytest.fixture(scope="module")
def begun(darcy: xr.Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps, kept whole."""
    place, before = tmp_path_factory.mktemp("begun"), Path.cwd()
    os.chdir(place)
    try:
        train.fit(untrained(darcy), darcy, SHORT)
        return place
    finally:
        os.chdir(before)


SHORT = replace(NUMBERS, steps=2, warmup=1, checkpoint_every=1, validation_every=2)


@pytest.mark.parametrize(("said", "change"), OTHERS.values(), ids=OTHERS.keys())
def test_a_run_is_not_resumed_with_other_numbers(
    said: str,
    change: Callable[[Train], Train],
    darcy: xr.Dataset,
    begun: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(begun)
    before = sorted(str(f) for f in begun.rglob("*"))
    with pytest.raises(InputError, match=said):
        train.fit(untrained(darcy), darcy, change(SHORT), resume=True)
    assert sorted(str(f) for f in begun.rglob("*")) == before


def test_a_run_is_not_resumed_with_another_network(
    darcy: xr.Dataset, begun: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(begun)
    build = recipe.load(ROOT / "models" / "darcy.py").build
    with pytest.raises(InputError, match="another network"):
        train.fit(build(darcy, modes=3, width=6, blocks=1, eofs=(6, 4)), darcy, SHORT, resume=True)
    with pytest.raises(InputError, match="holds a run already"):
        train.fit(untrained(darcy), darcy, SHORT)


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    darcy: xr.Dataset, begun: Path, here: Path
) -> None:
    shutil.copytree(begun / "run", here / "run")
    data = bytearray((here / "run/step=2.ckpt/tensors.safetensors").read_bytes())
    data[len(data) // 2] ^= 1
    (here / "run/step=2.ckpt/tensors.safetensors").write_bytes(data)
    with pytest.warns(UserWarning, match="step=2.ckpt is not whole"):
        model = train.fit(untrained(darcy), darcy, SHORT, resume=True)
    expected = load_file(begun / "run/best.ckpt/tensors.safetensors")
    assert same(load_file(here / "run/best.ckpt/tensors.safetensors"), expected)
    assert isinstance(model.sampler.denoiser, Preconditioned)


BAD: dict[str, tuple[str, Callable[[xr.Dataset], tuple[Model, xr.Dataset, Train]]]] = {
    "nothing to train": (
        "Gaussian.*expected Preconditioned",
        lambda ds: (gaussian(ds), ds, SHORT),
    ),
    "no splits": (
        "No split",
        lambda ds: (untrained(ds), ds.drop_attrs().assign_attrs(sciddm_sample_dim="sample"), SHORT),
    ),
    "no validation": (
        "No split 'validation'",
        lambda ds: (untrained(ds), split.attach(ds, {"train": [0, 24]}), SHORT),
    ),
    "a batch larger than the data": (
        "too few",
        lambda ds: (untrained(ds), ds, replace(SHORT, batch=25)),
    ),
}


def gaussian(ds: xr.Dataset) -> Model:
    model: Model = recipe.load(ROOT / "models" / "gaussian_fit.py").build(ds)
    return model


@pytest.mark.parametrize(("said", "bad"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_refused_before_anything_is_written(
    said: str,
    bad: Callable[[xr.Dataset], tuple[Model, xr.Dataset, Train]],
    darcy: xr.Dataset,
    here: Path,
) -> None:
    with pytest.raises(InputError, match=said) as error:
        train.fit(*bad(darcy))
    assert "\n" not in str(error.value) and list(here.iterdir()) == []


def test_an_interrupt_is_an_interrupt(
    darcy: xr.Dataset, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not an exit of another library's choice; and the next interrupt is heard again."""
    handler = signal.default_int_handler
    before = signal.signal(signal.SIGINT, handler)  # a run in the background may ignore it
    try:
        monkeypatch.setattr(
            objective, "denoising_loss", lambda *a, **k: signal.raise_signal(signal.SIGINT)
        )
        with pytest.raises(KeyboardInterrupt):
            train.fit(untrained(darcy), darcy, SHORT)
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, before)


def cross_fitted(ds: xr.Dataset) -> Model:
    """Three blocks of eight fields, each with a base that was fitted without it."""
    codec = Normaliser.fit(split.select(ds, "train"), ("solution",), "sample")
    x = encoded(split.select(ds, "train"), codec, "sample")
    process, zero = VE(clock=LogLinear(0.02, 50.0)), torch.zeros(())
    edges = [0, 8, 16, 24]
    parts = [
        Gaussian(zero, fit.eof(torch.cat([x[:a], x[b:]]), 6, 0.1), process)
        for a, b in zip(edges, edges[1:], strict=False)
    ]
    base = Gaussian(zero, fit.eof(x, 6, 0.1), process)
    torch.manual_seed(0)
    backbone = SpectralOperator(2, 1, (3, 3), 4, 1)
    denoiser = Preconditioned(backbone, process, CrossFitted(base, parts, edges))
    moments = Scaled(base, torch.zeros(1), torch.ones(1))
    return Model(Task(View(("solution",))), codec, Diffusion(denoiser, steps=6), moments)


def test_in_training_each_row_is_denoised_by_the_part_that_did_not_see_it(
    darcy: xr.Dataset,
) -> None:
    """From the store to the base: the rows of a batch, their index, and the base they meet."""
    model = cross_fitted(darcy)
    source = objective.Denoising(model, darcy, NUMBERS)
    denoiser = model.sampler.denoiser
    assert isinstance(denoiser, Preconditioned) and isinstance(denoiser.base, CrossFitted)
    met: set[int] = set()
    for step in range(3):
        x, context = source.batch(step, 0, 1)
        assert context.index is not None
        rows = split.select(darcy, "train").isel(sample=context.index.numpy())
        assert torch.equal(x, model.codec.encode({"solution": rows["solution"].values}))
        t = torch.linspace(0.1, 0.9, len(x)).view(-1, 1, 1, 1)
        mixed = denoiser.base(x, t, context)
        for i, at in enumerate(context.index.tolist()):
            block = at // 8
            met.add(block)
            alone = [p(x[i : i + 1], t[i : i + 1], Context()) for p in denoiser.base.parts]
            gaps = [float((mixed[i] - a[0]).abs().max()) for a in alone]
            assert gaps[block] < 1e-5 < min(g for k, g in enumerate(gaps) if k != block)
        in_use = denoiser.base(x, t, Context())
        torch.testing.assert_close(in_use, denoiser.base.whole(x, t, Context()))
    assert met == {0, 1, 2}


def test_a_trained_model_holds_the_whole_base_alone(darcy: xr.Dataset, here: Path) -> None:
    model = cross_fitted(darcy)
    size = {}
    for name, ours in {"before": model, "after": train.fit(model, darcy, SHORT)}.items():
        ours.save(name)
        text = (here / name / "model.json").read_text()
        assert "CrossFitted" not in text and "parts" not in text
        base = sciddm.load(name).sampler.denoiser.base
        assert isinstance(base, Gaussian) and isinstance(base.prior, LowRank)
        whole = model.sampler.denoiser.base.whole.prior  # type: ignore[union-attr]
        assert torch.equal(base.prior.modes, whole.modes)
        size[name] = (here / name / "weights.safetensors").stat().st_size
        drawn = sciddm.generate(ours, members=2)
        xr.testing.assert_identical(sciddm.generate(sciddm.load(name), members=2), drawn)
    # modes of one base, once for drawing and once for guidance, and a small network
    assert max(size.values()) < 2 * 6 * 144 * 4 + 20_000


def test_random_amplitudes_scale_each_field_by_itself() -> None:
    x = torch.ones(4000, 1, 2, 2)
    assert objective.rescaled(x, replace(NUMBERS, amplitude=0.0), 3, 0) is x
    y = objective.rescaled(x, replace(NUMBERS, amplitude=0.3), 3, 0)
    assert torch.equal(y, y[:, :, :1, :1].expand_as(y))
    log = y[:, 0, 0, 0].log()
    assert abs(float(log.std()) - 0.3) < 5 * 0.3 / math.sqrt(2 * 4000)
    assert abs(float(log.mean())) < 5 * 0.3 / math.sqrt(4000)
    assert torch.equal(y, objective.rescaled(x, replace(NUMBERS, amplitude=0.3), 3, 0))
    assert not torch.equal(y, objective.rescaled(x, replace(NUMBERS, amplitude=0.3), 4, 0))


def test_the_first_steps_see_block_means() -> None:
    x = torch.randn(2, 1, 8, 8, generator=torch.manual_seed(0))
    numbers = replace(NUMBERS, coarse_steps=10, coarse=2)
    first = objective.coarsened(x, numbers, 9)
    assert first.shape == (2, 1, 4, 4)
    assert torch.allclose(first[:, :, 1, 3], x[:, :, 2:4, 6:8].mean((2, 3)))
    assert objective.coarsened(x, numbers, 10) is x and objective.coarsened(x, NUMBERS, 0) is x


def test_coarse_steps_teach_what_the_fine_grid_needs(here: Path) -> None:
    """After coarse steps alone, the fine loss is below the base's own: a spectrum that is wrong by
    a factor is corrected on a grid that was never seen."""
    ds = recipe.load(ROOT / "datasets" / "poisson.py").fields(60, 16)
    ds = split.attach(ds, {"train": [0, 40], "validation": [40, 56], "test": [56, 60]})
    codec = Normaliser.fit(split.select(ds, "train"), ("coefficient",), "sample")
    noise = White(points=256)
    process = VE(noise, LogLinear(0.01, 100.0))
    prior = Gaussian(torch.zeros(()), Spectral(Matern(0.05, 1.5), (1.0, 1.0), Cosine()), process)
    torch.manual_seed(0)
    denoiser = Preconditioned(SpectralOperator(2, 1, (4, 4), 12, 2), process, prior)
    model = Model(Task(View(("coefficient",))), codec, Diffusion(denoiser))
    numbers = replace(NUMBERS, steps=150, warmup=10, coarse_steps=150, validation_every=25)
    held = codec.encode({"coefficient": split.select(ds, "validation")["coefficient"].values})
    with torch.no_grad():
        before = float(objective.validation_losses(denoiser, held, None)[1].mean())
    train.fit(model, ds, numbers)
    after = [float(line["validation"]) for line in logged(here / "run")]  # type: ignore[arg-type]
    assert after[-1] < 0.92 * before


def test_coarse_steps_are_refused_where_the_grid_is_tied(darcy: xr.Dataset, here: Path) -> None:
    model = untrained(darcy)
    numbers = replace(NUMBERS, coarse_steps=5, coarse=4)
    with pytest.raises(InputError, match="at least 4 blocks"):
        train.fit(model, darcy, numbers)
    modes = torch.eye(144)[:3].view(3, 1, 12, 12).repeat(1, 2, 1, 1) / math.sqrt(2)
    process = VE(clock=LogLinear(0.01, 100.0))
    base = Gaussian(torch.zeros(()), LowRank(modes, torch.ones(3), 0.1), process)
    tied = Preconditioned(SpectralOperator(4, 2, (2, 2), 4, 1), process, base)
    model = replace(model, sampler=Diffusion(tied), moments=None)
    with pytest.raises(InputError, match="tied to its grid"):
        train.fit(model, darcy, replace(NUMBERS, coarse_steps=5))
    assert not (here / "run").exists()


def test_noise_levels_are_stratified_and_normal_in_log_kappa() -> None:
    denoiser = Preconditioned(SpectralOperator(1, 1, (2, 2), 4, 1), VE(clock=LogLinear(1e-8, 1e8)))
    numbers = replace(NUMBERS, noise_mean=-0.4, noise_std=1.7)
    t = objective.noise_times(denoiser, numbers, 512, 5)
    log = denoiser.process.kappa(t).log().sort().values
    share = 0.5 * (1 + torch.erf((log + 0.4) / 1.7 / math.sqrt(2)))
    # one level in every 512th of the law
    assert torch.equal((share * 512).floor(), torch.arange(512.0, dtype=torch.float64))
    assert not torch.equal(t, objective.noise_times(denoiser, numbers, 512, 6))


def test_masked_points_do_not_count_in_the_loss() -> None:
    valid = np.ones((1, 4, 4), bool)
    valid[0, :2] = False
    axis = np.arange(4.0)
    grid = Grid(("y", "x"), {"y": axis, "x": axis})
    codec = Normaliser(grid, ("a",), {}, np.zeros((1, 1, 1)), np.ones(1), valid)
    weight = objective.measure(codec)
    assert weight is not None
    # an untrained network answers zero, so what is on land reaches only its own points
    denoiser = Preconditioned(SpectralOperator(1, 1, (2, 2), 4, 1), VE())
    x, t = torch.randn(3, 1, 4, 4), torch.full((3, 1, 1, 1), 0.5)
    other, rng = x.clone(), Streams.of(0, 3)
    other[:, :, :2] += 100
    loss = denoising_loss(denoiser, x, t, Context(), measure=weight, rng=rng)
    assert torch.equal(denoising_loss(denoiser, other, t, Context(), measure=weight, rng=rng), loss)
    alone = denoising_loss(denoiser, x, t, Context(), rng=rng)
    assert not torch.allclose(alone, loss)
