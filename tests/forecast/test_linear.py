"""The linear Gaussian law: its moments, what a fit converges to, and that it is what it says."""

from __future__ import annotations

import math
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor

import sciddm
from sciddm import recipe
from sciddm.covariance import PowerLaw
from sciddm.data.codec import Grid, Normaliser
from sciddm.denoise import Context
from sciddm.errors import InputError
from sciddm.forecasters import Forecaster, LinearGaussian, linear_inverse
from sciddm.pde import StochasticHeat
from sciddm.random import Streams
from sciddm.task import Lead, Task, View

SHELF = Path(__file__).parents[2] / "datasets"
HEAT = StochasticHeat(2 * math.pi, 0.012, 0.08, 0.25, PowerLaw(1.0, 3.0, 1.4))
POINTS = 16


def exact(points: int = POINTS, scale: float = 1.0, mean: float = 0.0) -> LinearGaussian:
    return LinearGaussian.circle(*HEAT.transition(points, 1.0), points, scale, mean)


def second_order(rank: int = 3) -> LinearGaussian:
    """Two past frames, patterns that are not the grid's axes, and a rest outside them."""
    rng = torch.Generator().manual_seed(1)
    q, _ = torch.linalg.qr(torch.randn(8, rank, generator=rng).double())
    a = torch.randn(2, rank, rank, generator=rng).double()
    a = a * torch.tensor([0.35, 0.2]).double()[:, None, None]
    root = torch.randn(rank, rank, generator=rng).double()
    modes = q.T.reshape(rank, 2, 4)
    return LinearGaussian(modes, a, root @ root.T, torch.tensor(0.3).double(), 0.6, 0.2)


def films(law: Forecaster, past: Tensor, frames: int, members: int, seed: int = 0) -> Tensor:
    context = Context(past=past.expand(members, *past.shape[1:]))
    shape = (members, past.shape[1], frames, *past.shape[3:])
    return law(shape, context, Streams.of(seed, members))


def test_the_circle_is_the_spectral_law() -> None:
    """One step of a field by its Fourier factors is the mean; the noise has the spectrum."""
    for points in (16, 15):
        law = exact(points)
        factor, variance = HEAT.transition(points, 1.0)
        x = torch.randn(3, 1, 1, points, generator=torch.Generator().manual_seed(0)).double()
        by_modes = torch.fft.irfft(torch.fft.rfft(x[:, :, 0]) * factor, points)
        torch.testing.assert_close(law.expected(x), by_modes)
        basis = law.modes[:, 0]
        torch.testing.assert_close(basis @ basis.T, torch.eye(points).double())
        full = basis.T @ law.noise @ basis
        eigen = torch.fft.rfft(full[0], norm="ortho").real * math.sqrt(points)
        torch.testing.assert_close(eigen, variance)
        # at rest it is the law that the films are drawn from
        still = basis.T @ law.stationary() @ basis
        eigen = torch.fft.rfft(still[0], norm="ortho").real * math.sqrt(points)
        torch.testing.assert_close(eigen, HEAT.stationary(points))


def test_films_are_of_the_stationary_law() -> None:
    law, drawn = exact(), HEAT.films(3000, POINTS, 3, 1.0, seed=2)
    z = law.coefficients(drawn[:, None])
    still = law.stationary()
    std = still.diagonal().sqrt()
    tolerance = 5 / math.sqrt(len(z))
    for n in (0, 2):
        seen = z[:, n].T @ z[:, n] / len(z)
        assert float(((seen - still) / torch.outer(std, std)).abs().max()) < tolerance
    lagged = z[:, 2].T @ z[:, 0] / len(z)
    a = law.transition[0]
    assert float(((lagged - a @ a @ still) / torch.outer(std, std)).abs().max()) < tolerance
    assert torch.equal(drawn[5:7], HEAT.films(2, POINTS, 3, 1.0, seed=2, start=5))


@pytest.mark.parametrize("law", [exact(), second_order()], ids=["heat", "second order and rest"])
def test_an_ensemble_has_the_closed_moments_at_every_lead(law: LinearGaussian) -> None:
    members, leads = 6000, 4
    grid = tuple(law.modes.shape[1:])
    past = torch.randn(
        1, grid[0], law.history, *grid[1:], generator=torch.Generator().manual_seed(3)
    ).double()
    drawn = films(law, past, leads, members)
    mean, variance = law.means(past, leads)[0], law.variances(leads).movedim(0, 1)
    z = (drawn.mean(0) - mean) / (variance / members).sqrt()
    assert float(z.abs().max()) < 4.5
    ratio = drawn.var(0) / variance
    assert float((ratio - 1).abs().max()) < 5 * math.sqrt(2 / members)
    # the joint law of the leads, in units of its own standard deviations
    c = law.coefficients(drawn)
    gap = (c - c.mean(0)).flatten(1)
    joint = law.joint(leads).reshape(gap.shape[1], -1)
    std = joint.diagonal().sqrt()
    off = ((gap.T @ gap / members - joint) / torch.outer(std, std)).abs().max()
    assert float(off) < 5 * math.sqrt(2 / members)
    torch.testing.assert_close(
        law.covariances(leads), torch.stack([law.joint(leads)[n, :, n] for n in range(leads)])
    )


def test_far_ahead_the_law_is_at_rest() -> None:
    for law in (exact(), second_order()):
        still = law.stationary()
        torch.testing.assert_close(law.covariances(400)[-1], still)
    # fluctuation and dissipation: what a frame forgets is what the noise gives back
    law = exact()
    still, a = law.stationary(), law.transition[0]
    torch.testing.assert_close(still - a @ still @ a.T, law.noise)


def test_a_fit_converges_to_the_exact_law() -> None:
    """Errors fall as 1 / sqrt(films), to the sampling error of least squares."""
    true, errors = exact(), []
    for count in (100, 1600):
        drawn = HEAT.films(count, POINTS, 20, 1.0, seed=5)[:, None]
        fitted = linear_inverse(drawn, POINTS)
        assert fitted.floor == 0.0
        basis, own = true.modes[:, 0], fitted.modes[:, 0].double()
        a = basis @ own.T @ fitted.transition[0] @ own @ basis.T
        q = basis @ own.T @ fitted.noise @ own @ basis.T
        std = true.noise.diagonal().sqrt()
        still = true.stationary().diagonal()
        # a row's error has variance Q / (n S): in those units it is N(0, 1)
        gap = (a - true.transition[0]) / (true.noise.diagonal()[:, None] / still).sqrt()
        errors.append(float(gap.square().mean().sqrt()) * math.sqrt(19 * count))
        gap = (q - true.noise) / torch.outer(std, std)
        assert float(gap.square().mean().sqrt()) < 1.3 * math.sqrt(1.1 / (19 * count))
    assert all(0.85 < e < 1.15 for e in errors)


def test_a_short_record_gives_a_law_that_settles() -> None:
    rng = np.random.default_rng(0)
    walk = torch.from_numpy(np.cumsum(rng.standard_normal((1, 2, 60, 5)), axis=2))
    for order in (1, 2):
        law = linear_inverse(walk, 8, order=order, ridge=0.02)
        assert law.radius < 1 and len(law.modes) <= 8
        assert bool(torch.isfinite(law.stationary()).all())
    # one that grows is damped until it settles
    grows = 1.02 ** torch.arange(80.0).double() * torch.ones(1, 1, 80).double()
    grows = grows[..., None] + 0.01 * torch.from_numpy(rng.standard_normal((1, 1, 80, 3)))
    for order in (1, 2):
        law = linear_inverse(grows, 3, order=order)
        assert 0.999 < law.radius < 1
    with pytest.raises(InputError, match="expected longer or more"):
        linear_inverse(walk[:, :, :2], 3)


def test_the_rest_outside_the_modes_keeps_its_variance_and_persistence() -> None:
    """Red noise of 0.7 a frame in every value, one pattern of five: the fit knows both."""
    rng, n = np.random.default_rng(1), 40_000
    x = np.zeros((n, 6))
    for t in range(1, n):
        x[t] = 0.7 * x[t - 1] + math.sqrt(1 - 0.49) * rng.standard_normal(6)
    x[:, 0] *= 5
    law = linear_inverse(torch.from_numpy(x.T[None, None].transpose(0, 1, 3, 2)), 1)
    assert law.persistence == pytest.approx(0.7, abs=0.02)
    assert law.floor == pytest.approx(1.0, abs=0.05)
    drawn = films(law, torch.zeros(1, 1, 1, 6), 30, 800)
    assert float(drawn[:, 0, -1, 1:].var()) == pytest.approx(1.0, abs=0.08)


def test_first_members_are_the_same_and_frames_do_not_wait_for_later_ones() -> None:
    law = second_order()
    past = torch.randn(1, 2, 2, 4, generator=torch.Generator().manual_seed(2))
    many, few = films(law, past, 5, 7), films(law, past, 3, 4)
    torch.testing.assert_close(many[:4, :, :3], few)
    alone = Context(past=past)
    one = next(islice(law.frames(alone, Streams.of(0, [6])), 2, None))
    torch.testing.assert_close(many[6:, :, 2], one)


def test_a_law_is_saved_and_loaded(tmp_path: Path) -> None:
    law = second_order()
    grid = Grid(("x",), {"x": np.arange(4.0)})
    codec = Normaliser(grid, ("u", "v"), {}, np.zeros((2, 1)), np.ones(2))
    task = Task(View(("u", "v")), lead=Lead())
    sciddm.Model(task, codec, law).save(tmp_path / "law")
    again = sciddm.load(tmp_path / "law").forecaster
    past = torch.ones(1, 2, 2, 4)
    torch.testing.assert_close(films(law, past, 3, 2), films(again, past, 3, 2))


def test_bad_laws_are_refused() -> None:
    one, modes = torch.eye(1), torch.ones(1, 1, 1)
    zero = torch.zeros(())
    with pytest.raises(InputError, match="one matrix for every frame"):
        LinearGaussian(modes, one, one, zero)
    with pytest.raises(InputError, match="eigenvalue -1"):
        LinearGaussian(modes, one[None], -one, zero)
    with pytest.raises(InputError, match="expected decay"):
        LinearGaussian(modes, 1.1 * one[None], one, zero).stationary()
    with pytest.raises(InputError, match="0 frames of the past"):
        next(iter(exact().frames(Context(), Streams.of(0, 1))))
    for numbers in ((0.0, 1.0, 1.0, 1.0), (1.0, -1.0, 1.0, 1.0), (1.0, 1.0, 0.0, 1.0)):
        with pytest.raises(InputError, match="positive length"):
            StochasticHeat(*numbers, PowerLaw(1.0, 3.0))
    with pytest.raises(InputError, match="at least 4 points"):
        HEAT.films(1, 3, 1, 1.0)


def test_stores_say_their_own_law() -> None:
    """What `spde_heat` writes into its attributes gives back its films, and a variance of 1; the
    record of `ou_modes` turns and fades as its law says."""
    shelf = recipe.load(SHELF / "spde_heat.py", "datasets")
    ds: xr.Dataset = shelf.fields(3, 64)
    said = ds.attrs["sciddm_generator"]
    heat = StochasticHeat(
        said["length"], said["diffusivity"], said["damping"], said["speed"],
        PowerLaw(**said["noise"]),
    )  # fmt: skip
    drawn = heat.films(3, 64, said["frames"], said["step"]).numpy().astype("f4")
    np.testing.assert_array_equal(ds["temperature"].values, drawn)
    law = shelf.law(ds)
    assert float(law.variances(500)[-1].mean()) == pytest.approx(1.0, rel=1e-6)
    torch.testing.assert_close(
        law.transition, LinearGaussian.circle(*heat.transition(64, 1.0), 64).transition
    )
    film = torch.from_numpy(shelf.fields(300, 64)["temperature"].values)[:, None]
    assert float(surprise(law, film)) == pytest.approx(1.0, abs=0.01)

    shelf = recipe.load(SHELF / "ou_modes.py", "datasets")
    law, ds = shelf.law(16), shelf.record(1500, 16, seed=3)
    assert float(surprise(law, torch.from_numpy(ds["anomaly"].values)[None, None])) == (
        pytest.approx(1.0, abs=0.03)
    )
    variances = [v for *_, v, _, _ in shelf.PAIRS for _ in range(2)]
    still = torch.tensor(variances, dtype=torch.float64)
    torch.testing.assert_close(
        law.stationary(), torch.diag(still * 16**2 / 2), atol=1e-9, rtol=1e-9
    )
    # after the period P of a pair it is where it was, less what it has forgotten
    a = torch.linalg.matrix_power(law.transition[0], 40)
    torch.testing.assert_close(a[:2, :2], math.exp(-40 / 30) * torch.eye(2).double())


def surprise(law: LinearGaussian, films: Tensor) -> Tensor:
    """Mean squared surprise of each next frame's coefficients under the law: 1 if it is theirs."""
    z = law.coefficients(films)
    gap = z[:, 1:] - z[:, :-1] @ law.transition[0].T
    return (gap @ torch.linalg.inv(law.noise) * gap).mean()
