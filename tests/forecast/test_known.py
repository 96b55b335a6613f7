"""What is known of every frame: a band of Fourier modes, and values at places."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sciddm.denoise import Context
from sciddm.errors import InputError
from sciddm.forecasters import Band, Boundary, Forecaster, LinearGaussian, linear_inverse
from sciddm.random import Streams


@pytest.mark.parametrize("grid", [(12,), (13,), (10, 12), (9, 11)])
def test_a_band_takes_the_modes_beyond_it_and_leaves_the_others(grid: tuple[int, ...]) -> None:
    x = Streams.of(0, 3).normal(torch.zeros(3, 2, *grid, dtype=torch.float64))
    once = Band(3).impose(x, x[:, :, None])
    axes = tuple(range(2, x.ndim))
    before, after = (np.abs(np.fft.fftn(v.numpy(), axes=axes)) for v in (x, once))
    waves = np.meshgrid(*(np.fft.fftfreq(n, 1 / n) for n in grid), indexing="ij")
    within = np.all([np.abs(w) <= 3 for w in waves], axis=0)
    np.testing.assert_allclose(after[:, :, within], before[:, :, within], rtol=1e-10)
    assert np.abs(after[:, :, ~within]).max() < 1e-10 * before.max()
    assert torch.allclose(Band(3).impose(once, x[:, :, None]), once)


def test_a_field_within_the_band_is_left_as_it_is() -> None:
    at = 2 * np.pi * torch.arange(16, dtype=torch.float64) / 16
    x = (1 + torch.cos(3 * at) + torch.sin(at)).view(1, 1, 16)
    assert torch.allclose(Band(3).impose(x, x[:, :, None]), x, atol=1e-12)
    assert torch.allclose(Band(0).impose(x, x[:, :, None]), torch.ones_like(x))
    with pytest.raises(InputError, match="mode -1"):
        Band(-1)


def law() -> LinearGaussian:
    rng = Streams.of(4, 400)
    x = [rng.at("start").normal(torch.zeros(400, 1, 8))]
    for n in range(12):
        x.append(0.9 * torch.roll(x[-1], 1, -1) + 0.4 * rng.at("next", n).normal(x[-1]))
    return linear_inverse(torch.stack(x, dim=2), modes=8)


@pytest.mark.parametrize("known", [Band(1), Boundary(torch.eye(8)[None, 2] > 0, torch.ones(1, 8))])
def test_frames_are_held_to_it_before_the_next_one_sees_them(known: Band | Boundary) -> None:
    """A walk is the same as one step after another from frames that were held to it."""
    forecaster: Forecaster = law()
    forecaster.boundary = known
    past = Streams.of(1, 2).normal(torch.zeros(2, 1, 1, 8))
    rng = Streams.of(2, 2)
    frames = forecaster((2, 1, 3, 8), Context(past=past), rng)
    for k in range(3):
        frame = frames[:, :, k]
        assert torch.allclose(known.impose(frame, past), frame, atol=1e-6)
    forecaster.boundary = None
    free = forecaster((2, 1, 3, 8), Context(past=past), rng)
    held = known.impose(free[:, :, 0], past)
    assert torch.allclose(frames[:, :, 0], held, atol=1e-6)
    assert not torch.allclose(frames[:, :, 1], known.impose(free[:, :, 1], past), atol=1e-3)
