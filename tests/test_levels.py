"""Details drawn level by level: what was known stays, what is learned carries to a finer grid."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sciddm import nn
from sciddm.covariance import White
from sciddm.denoise import Context, Denoiser, Gaussian, Preconditioned
from sciddm.errors import InputError
from sciddm.levels import Finer
from sciddm.process import VE, LogLinear
from sciddm.random import Streams
from sciddm.solve import Diffusion
from sciddm.wavelet import DWT

PROCESS = VE(clock=LogLinear(0.01, 100.0))
DOUBLE = torch.float64


def fields(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))


def blind(transform: DWT, detail: float = 0.3) -> Finer:
    """Details that are white whatever the field."""
    prior = Gaussian(torch.zeros((), dtype=DOUBLE), White(), PROCESS)
    return Finer(transform, Diffusion(prior, steps=24), 2.0, detail)


TRANSFORMS = {
    "series": (DWT("bior2.4", (False,)), (12,)),
    "film": (DWT("bior4.4", (False, True)), (8, 6)),
    "one axis of two": (DWT("haar", (False, True), 1, (1,)), (5, 6)),
    "volume": (DWT("haar", (True, True, True)), (4, 2, 6)),
}


@pytest.mark.parametrize(("transform", "grid"), TRANSFORMS.values(), ids=TRANSFORMS.keys())
def test_split_and_join_are_inverses(transform: DWT, grid: tuple[int, ...]) -> None:
    finer = blind(transform)
    fine = tuple(n * 2 if a in transform.chosen else n for a, n in enumerate(grid))
    x = fields(2, 3, *fine)
    coarse, details = finer.split(x)
    assert tuple(coarse.shape) == (2, 3, *grid)
    assert details.shape[1] == 3 * (2 ** len(transform.chosen) - 1)
    torch.testing.assert_close(finer.join(coarse, details), x)
    # averages are in the field's own units, and a constant has no details
    coarse, details = finer.split(torch.full((1, 1, *fine), 7.0, dtype=DOUBLE))
    torch.testing.assert_close(coarse, torch.full_like(coarse, 7.0))
    assert float(details.abs().max()) < 1e-9


@pytest.mark.parametrize("doublings", [1, 2])
def test_what_was_known_stays(doublings: int) -> None:
    finer = blind(DWT("bior4.4", (False, True)))
    x = fields(4, 2, 8, 16)
    out = finer(x, Streams.of(3, 4), doublings)
    assert tuple(out.shape[2:]) == (8 * 2**doublings, 16 * 2**doublings)
    for _ in range(doublings):
        out, details = finer.split(out)
    torch.testing.assert_close(out, x)
    assert 0.5 < float(details.std()) < 1.5


def test_two_doublings_are_one_after_the_other_with_other_noise() -> None:
    finer = blind(DWT("haar", (True,)))
    x = fields(3, 1, 64)
    both = finer(x, Streams.of(3, 3, case=5), 2)
    once = finer(x, Streams.of(3, 3, case=5))
    torch.testing.assert_close(finer.split(both)[0], once)
    first, second = finer.split(once)[1], finer.split(both)[1]
    likeness = float((first * second[..., :64]).mean() / (first.std() * second.std()))
    assert abs(likeness) < 5 / np.sqrt(first.numel())


def test_a_member_is_the_same_in_any_batch() -> None:
    finer = blind(DWT("haar", (True,)))
    x = fields(3, 1, 16)
    all_of_them = finer(x, Streams.of(3, 3), 2)
    torch.testing.assert_close(finer(x[1:2], Streams.of(3, [1]), 2), all_of_them[1:2])


class Edges(Denoiser):
    """The exact denoiser of haar details that are a multiple of the neighbouring difference."""

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)
        self.process = PROCESS

    def forward(self, x_t: torch.Tensor, t: torch.Tensor, context: Context) -> torch.Tensor:
        assert context.fields is not None
        x = context.fields.to(x_t)
        return 0.125 * (x.roll(1, -1) - x.roll(-1, -1)).expand_as(x_t)


def test_the_field_is_seen_in_its_own_scale() -> None:
    """Parabolic interpolation written as details meets a parabola's averages everywhere inside."""
    finer = Finer(DWT("haar", (True,)), Diffusion(Edges(), steps=3), 4.0, 4.0)
    edge = np.linspace(-1, 1, 65)
    fine = torch.from_numpy(np.diff(edge**3 - edge) / np.diff(edge))[None, None]
    coarse, _ = finer.split(fine)
    out = finer(coarse, Streams.of(0, 1))
    torch.testing.assert_close(out[..., 2:-2], fine[..., 2:-2])


def fronts(count: int, n: int, seed: int) -> torch.Tensor:
    """Block means of steps at random places of a line, on ``n`` cells."""
    rng = np.random.default_rng(seed)
    place, side = rng.uniform(0.1, 0.9, (count, 1)), rng.choice([-1.0, 1.0], (count, 1))
    share = np.clip(place * n - np.arange(n), 0, 1)
    return torch.from_numpy((side * (2 * share - 1)).astype("f4"))[:, None]


def test_what_is_learned_on_coarse_grids_beats_interpolation_on_a_finer_one() -> None:
    torch.manual_seed(0)
    net = nn.SpectralOperator(2, 1, (2,), 12, 2, kernel=3)
    blank = Diffusion(Preconditioned(net, PROCESS), steps=12)
    x = fronts(512, 64, 0)
    finer = Finer.fitted(DWT("haar", (False,)), blank, x)
    optimiser = torch.optim.Adam(net.parameters(), 5e-3)
    rng = np.random.default_rng(1)
    for step in range(250):
        rows = torch.from_numpy(rng.choice(512, 32, replace=False))
        kappa = torch.from_numpy(np.exp(rng.normal(-1, 2, (32, 1, 1))))
        loss = finer.loss(x[rows], PROCESS.clock.time(kappa), Streams.of(0, 32).at("x", step), 3)
        optimiser.zero_grad()
        loss.mean().backward()
        optimiser.step()
    net.requires_grad_(False)
    truth = fronts(64, 128, 2)  # twice the grid of the training fields
    coarse, _ = finer.split(truth)
    draws = torch.stack([finer(coarse, Streams.of(s, 64)) for s in range(8)])
    error = float((draws.mean(0) - truth).norm())
    at = (np.arange(128) - 0.5) / 2
    line = torch.from_numpy(np.stack([np.interp(at, np.arange(64), v[0]) for v in coarse.numpy()]))
    assert error < 0.6 * float((line[:, None] - truth).norm())


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(InputError, match="2 levels"):
        blind(DWT("haar", (True,), 2))
    with pytest.raises(InputError, match="positive scales"):
        blind(DWT("haar", (True,)), 0.0)
    with pytest.raises(InputError, match="9 doublings"):
        blind(DWT("haar", (True,)))(fields(1, 1, 8), Streams.of(0, 1), 9)
    with pytest.raises(InputError, match="Gaussian to train"):
        blind(DWT("haar", (True,))).loss(fields(1, 1, 8), torch.tensor(0.5), Streams.of(0, 1), 1)
