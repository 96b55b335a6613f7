"""The wavelet codec: nothing is lost, sensors see the field, and a model of it is saved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import sciddm
from sciddm.covariance import White
from sciddm.data.bands import Wavelet
from sciddm.data.codec import Normaliser, TwoValued
from sciddm.denoise import Gaussian
from sciddm.errors import InputError
from sciddm.guide import linear_posterior
from sciddm.observe import Function, Observation
from sciddm.observe.noise import Gaussian as Normal
from sciddm.process import VE, LogLinear
from sciddm.solve import Diffusion
from sciddm.wavelet import DWT


def waves(n: int = 20, nt: int = 12, nx: int = 16) -> xr.Dataset:
    """Two variables in time and on a circle, of other sizes and units."""
    rng = np.random.default_rng(0)
    x, t = np.arange(nx) / nx, np.linspace(0, 1, nt)
    phase = rng.random((n, 1, 1)) + x - t[:, None]
    u = np.sin(2 * np.pi * phase) + 0.1 * rng.standard_normal((n, nt, nx))
    v = 7 + 3 * np.sign(np.cos(2 * np.pi * phase)) + 0.1 * rng.standard_normal((n, nt, nx))
    dims = ("sample", "time", "x")
    return xr.Dataset(
        {
            "u": (dims, u.astype("f4"), {"units": "m s-1"}),
            "v": (dims, v.astype("f4"), {"units": "K"}),
        },
        {"time": t, "x": ("x", x, {"period": 1.0})},
    )


def fitted(ds: xr.Dataset, name: str = "bior2.4", levels: int = 1) -> Wavelet:
    inner = Normaliser.fit(ds, ("u", "v"), "sample")
    return Wavelet.fit(ds, inner, "sample", name, levels)


def arrays(ds: xr.Dataset) -> dict[str, np.ndarray]:
    return {str(n): v.values for n, v in ds.data_vars.items()}


@pytest.mark.parametrize("name", ["bior2.4", "db2", "haar"])
@pytest.mark.parametrize("levels", [1, 2])
def test_there_and_back(name: str, levels: int) -> None:
    ds = waves()
    codec = fitted(ds, name, levels)
    x = codec.encode(arrays(ds))
    assert x.dtype == torch.float32 and tuple(x.shape[1:]) == codec.shape
    assert codec.shape == (2 * 4**levels, 12 // 2**levels, 16 // 2**levels)
    # every channel has unit size
    np.testing.assert_allclose(x.square().mean((0, 2, 3)), 1, rtol=1e-5)
    back = codec.decode(x, xr.DataArray(np.arange(20), dims="sample", name="sample"))
    for key in ("u", "v"):
        np.testing.assert_allclose(back[key], ds[key], atol=1e-5)
        assert back[key].attrs == ds[key].attrs
    assert codec.grid.attrs["x"] == {"period": 1.0}


def test_the_circle_is_wrapped_and_time_is_not() -> None:
    codec = fitted(waves())
    assert codec.transform.periodic == (False, True)
    turned = waves().roll(x=6)
    x, y = codec.encode(arrays(waves())), codec.encode(arrays(turned))
    torch.testing.assert_close(y, x.roll(3, dims=3))


def test_the_field_is_linear_in_the_coefficients_and_has_their_gradient() -> None:
    codec = fitted(waves(), "db2")
    x = torch.randn(1, *codec.shape, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(codec.physical, (x,))
    # orthonormal: the gradient of half the energy of the normalised field is scale^2 x
    inner = codec.inner
    assert isinstance(inner, Normaliser)
    std = torch.from_numpy(inner.std).view(-1, 1, 1)
    energy = ((codec.physical(x) - torch.from_numpy(inner.mean)) / std).square().sum() / 2
    energy.backward()
    scale = torch.from_numpy(codec.scale).view(-1, 1, 1)
    torch.testing.assert_close(x.grad, scale**2 * x.detach())


def test_sensors_of_the_field_guide_the_coefficients() -> None:
    """White coefficients of an orthonormal transform are white fields: one posterior."""
    ds = waves()
    inner = Normaliser.fit(ds, ("u", "v"), "sample")
    transform = DWT("db2", (False, True), 1)
    codec = Wavelet(inner, transform, np.ones(8))
    at = {"time": xr.DataArray([0.1, 0.5, 0.52]), "x": xr.DataArray([0.97, 0.3, 0.36])}
    seen = sciddm.Observed(ds["v"].isel(sample=0).interp(at), std=0.3)
    prior = Gaussian(torch.zeros(()), White(), VE(clock=LogLinear(0.01, 100.0)))
    answers = []
    for one in (codec, inner):
        model = sciddm.Model(
            sciddm.Task(sciddm.View(("u", "v"))), one, Diffusion(prior, steps=4), moments=prior
        )
        post = sciddm.krige(model, seen, members=512, seed=0)
        answers.append((post["v"].mean("member"), post["v"].std("member")))
    (mean, std), (expected, spread) = answers
    np.testing.assert_allclose(mean, expected, atol=6 * 3 * np.sqrt(2 / 512))
    np.testing.assert_allclose(std, spread, rtol=0.25)
    observed = np.abs(expected - 7) > 0.5  # the posterior moved somewhere
    assert 2 <= int(observed.sum()) <= 12


def test_the_posterior_is_that_of_the_field_exactly() -> None:
    ds = waves()
    inner = Normaliser.fit(ds, ("u", "v"), "sample")
    codec = Wavelet(inner, DWT("db2", (False, True), 1), np.ones(8))
    prior = Gaussian(torch.zeros((), dtype=torch.float64), White(), VE())
    means = []
    for one in (codec, inner):
        blank = torch.zeros(1, *one.shape, dtype=torch.float64)
        field = Function(one.physical)
        operator = Function(lambda x: x[:, 0, ::5, ::5].flatten(1)) @ field
        law = Normal(torch.tensor(0.2, dtype=torch.float64))
        y = torch.arange(12, dtype=torch.float64)
        mean, _, _ = linear_posterior(prior, Observation(y, operator, law), blank)
        means.append(one.physical(mean))
    torch.testing.assert_close(means[0], means[1])


def test_a_model_of_coefficients_is_saved_and_draws_the_same(tmp_path: Path) -> None:
    ds = waves()
    codec = TwoValued(fitted(ds), "v", 4.0, 10.0)
    prior = Gaussian(torch.zeros(()), White(), VE(clock=LogLinear(0.01, 100.0)))
    task = sciddm.Task(sciddm.View(("u", "v")))
    model = sciddm.Model(task, codec, Diffusion(prior, steps=4), moments=prior)
    model.save(tmp_path / "model")
    drawn = sciddm.generate(model, members=3, seed=1)
    again = sciddm.generate(sciddm.load(tmp_path / "model"), members=3, seed=1)
    xr.testing.assert_identical(drawn, again)
    assert dict(drawn.sizes) == {"member": 3, "time": 12, "x": 16}
    assert set(np.unique(drawn["v"])) <= {4.0, 10.0}


BAD: dict[str, tuple[str, Callable[[], object]]] = {
    "missing points": (
        "missing points",
        lambda: fitted(waves().where(waves()["x"] > 0.1)),
    ),
    "a grid too often halved": (r"12.*multiples of 8", lambda: fitted(waves(), levels=3)),
    "another grid": (
        r"on its grid \(12, 16\); got \(24, 16\)",
        lambda: fitted(waves()).at(fitted(waves()).grid.resized({"time": 24})),
    ),
    "a scale of zero": (
        "finite and positive",
        lambda: replace(fitted(waves()), scale=np.zeros(8)),
    ),
    "too few scales": (
        r"\(7,\); expected \(8,\)",
        lambda: replace(fitted(waves()), scale=np.ones(7)),
    ),
}


@pytest.mark.parametrize(("said", "act"), BAD.values(), ids=BAD.keys())
def test_what_cannot_be_is_refused(said: str, act: Callable[[], object]) -> None:
    with pytest.raises(InputError, match=said):
        act()
