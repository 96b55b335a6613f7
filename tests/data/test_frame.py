from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import sciddm as sd
from sciddm.basis import Cosine
from sciddm.covariance import PowerLaw, Spectral, ZeroMean
from sciddm.data.codec import Derived, Grid, Normaliser
from sciddm.data.frame import Framed, fill
from sciddm.denoise import Gaussian
from sciddm.errors import InputError
from sciddm.guide import linear_posterior
from sciddm.pde import GaussianField, Helmholtz
from sciddm.process import VE
from sciddm.solve import Diffusion

S = 16
NODES = np.linspace(0.0, 1.0, S)
PLAIN = Normaliser(
    Grid(("y", "x"), {"y": NODES, "x": NODES}),
    ("coefficient",),
    {"coefficient": {"units": "1"}},
    np.full((1, 1, 1), 0.5),
    np.array([0.25]),
)
CODEC = Framed(PLAIN)


def model(size: int = S) -> sd.Model:
    """The exact law of the Helmholtz coefficient in a model whose unit is 1."""
    inner = Normaliser(
        Grid(("y", "x"), {d: np.linspace(0.0, 1.0, size) for d in ("y", "x")}),
        ("coefficient",),
        {"coefficient": {"units": "1"}},
        np.zeros((1, 1, 1)),
        np.ones(1),
    )
    codec = Derived(Framed(inner), "solution", {"units": "1"}, Helmholtz(1.0))
    law = Spectral(ZeroMean(PowerLaw(2.0, 3.0, 3.0)), (1.0, 1.0), Cosine())
    prior = Gaussian(torch.zeros(()), law, VE())
    return sd.Model(
        sd.Task(sd.View(("coefficient", "solution"))), codec, Diffusion(prior, steps=8), prior
    )


def test_a_framed_field_comes_back_and_its_frame_is_exact() -> None:
    field = np.random.default_rng(0).standard_normal((3, S, S))
    field[:, [0, -1]] = field[:, :, [0, -1]] = 0.0
    x = CODEC.encode({"coefficient": field})
    back = CODEC.physical(x)[:, 0].numpy()
    np.testing.assert_allclose(back, field, atol=1e-6)
    given = CODEC.decode(x, xr.DataArray(range(3), dims="sample", name="sample"))["coefficient"]
    assert not given.isel(x=[0, -1]).values.any() and not given.isel(y=[0, -1]).values.any()
    assert given.isel(x=slice(1, -1), y=slice(1, -1)).values.all()
    # What diffuses has no jump: the frame holds other values than 0.
    assert x[:, 0, 0].abs().min() > 0


def test_the_fill_is_exact_for_what_is_even_about_half_a_step_outside() -> None:
    y, x = (np.arange(9) + 0.5)[:, None], (np.arange(7) + 0.5)[None, :]
    smooth = 2.0 + 0.3 * y**2 - 0.7 * x**2 + 0.1 * x**2 * y**2
    framed = smooth[None].copy()
    framed[:, 0] = framed[:, :, 0] = 0.0
    np.testing.assert_allclose(fill(framed)[0, :-1, :-1], smooth[:-1, :-1], rtol=1e-12)


def test_the_fill_is_nearly_the_best_prediction_of_the_cosine_field() -> None:
    a = GaussianField().draw(120, 32, seed=1)[:, 0].numpy()
    edge, near, next_ = (a[:, k, 1:-1].ravel() for k in (0, 1, 2))
    best, *_ = np.linalg.lstsq(np.stack([near, next_], 1), edge, rcond=None)
    floor = np.mean((edge - best[0] * near - best[1] * next_) ** 2)
    ours = np.mean((edge - fill(a)[:, 0, 1:-1].ravel()) ** 2)
    copied = np.mean((edge - near) ** 2)
    assert ours < 1.03 * floor and copied > 1.2 * ours


def test_sensors_on_the_frame_tell_nothing_and_members_keep_to_it() -> None:
    framed = model()
    where = {"y": ("station", [0.0, 0.4]), "x": ("station", [0.4, 1.0])}
    edge = xr.DataArray(np.zeros(2), dims="station", coords=where, name="coefficient")
    _, _, observation = next(iter(sd.Observed(edge, std=0.1).cases(framed.codec)))
    like = torch.zeros(1, 1, S, S, dtype=torch.float64)
    prior = framed.gaussian
    assert prior is not None
    mean, _, variance = linear_posterior(prior, observation, like)
    torch.testing.assert_close(mean, like)
    torch.testing.assert_close(variance, prior.prior.diagonal(like))
    drawn = sd.recover(framed, sd.Observed(edge, std=0.1), members=2, seed=0)
    for name in ("coefficient", "solution"):
        assert not drawn[name].isel(x=[0, -1]).values.any()


def test_the_exact_posterior_has_the_error_that_theory_gives() -> None:
    """64 x 64, 125 values of u without error: 11.27 % of a is not known, 6.05 % the other way."""
    size, fields = 64, 150
    framed = model(size)
    prior = framed.gaussian
    assert prior is not None
    a = torch.nn.functional.pad(
        GaussianField().draw(fields, size, seed=8)[..., 1:-1, 1:-1], [1] * 4
    )
    truth = torch.cat([a, Helmholtz()(a)], 1)
    flat = np.random.default_rng(2).choice(size * size, 125, replace=False)
    found = {}
    for seen, name in enumerate(("coefficient", "solution")):
        values = truth[:, seen].flatten(1)[:, flat]
        row, column = np.divmod(flat, size)
        nodes = framed.codec.grid.coords["y"]
        points = xr.DataArray(
            values[0], dims="station", name=name,
            coords={"y": ("station", nodes[row]), "x": ("station", nodes[column])},
        )  # fmt: skip
        std = 1e-6 * float(values.square().mean().sqrt())
        _, _, observation = next(iter(sd.Observed(points, std=std).cases(framed.codec)))
        _, gain, _ = linear_posterior(prior, observation, torch.zeros_like(a))
        other = framed.codec.physical(gain(values / std))[:, 1 - seen]
        error = (other - truth[:, 1 - seen]).flatten(1).norm(dim=1)
        found[name] = 100 * error / truth[:, 1 - seen].flatten(1).norm(dim=1)
    for name, limit in (("solution", 11.265), ("coefficient", 6.047)):
        # Three standard errors over fields, and 4 % from mask to mask.
        slack = 3 * float(found[name].std()) / fields**0.5 + 0.04 * limit
        assert float(found[name].mean()) == pytest.approx(limit, abs=slack)


def test_a_framed_model_is_saved_and_refined(tmp_path: Path) -> None:
    first = model()
    first.save(tmp_path / "m")
    again = sd.load(tmp_path / "m")
    x = torch.randn(1, 1, S, S, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(again.codec.physical(x), first.codec.physical(x))
    fine = again.at({"y": 31, "x": 31})
    assert fine.codec.grid.shape == (31, 31)
    # The frame is one point wide on every grid.
    assert float(fine.codec.physical(torch.ones(1, 1, 31, 31))[0, 0, 1:-1, 1:-1].min()) == 1.0


def test_bad_frames_are_refused() -> None:
    field = np.zeros((1, S, S))
    field[0, 3, -1] = 0.2
    with pytest.raises(InputError, match="Got 'coefficient' with 0.2 on its edge"):
        CODEC.encode({"coefficient": field})
    small = Grid(("x",), {"x": np.arange(3.0)})
    with pytest.raises(InputError, match="at least 4 points a side"):
        Framed(Normaliser(small, ("a",), {}, np.zeros((1, 1)), np.ones(1)))
    with pytest.raises(InputError, match="expected a finite value"):
        Framed(PLAIN, value=float("nan"))
