"""Burgers films on twice and four times their grid: details drawn level by level.

A tiny network of local maps is trained here, in a minute, on the details of 64 x 64 films given
their averages on 32 x 32, and of those given 16 x 16. It then draws 128 x 128 films from averages
on 64 x 64, a level that it never saw, and from 32 x 32 in two doublings, beside linear and cubic
interpolation of the same averages. Films of a seed that nothing was trained on.
"""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr
from _report import Report
from scipy.ndimage import map_coordinates
from torch import Tensor

from sciddm import nn
from sciddm.denoise import Preconditioned
from sciddm.levels import Finer
from sciddm.process import VE, LogLinear
from sciddm.random import Streams
from sciddm.score import crps
from sciddm.solve import Diffusion
from sciddm.wavelet import DWT

MEMBERS, STEPS, BATCH = 16, 16, 8


def trained(x: Tensor, steps: int, width: int) -> Finer:
    """The details of films ``x`` (N, 1, time, x) and of their averages, one set of weights."""
    process = VE(clock=LogLinear(0.01, 100.0))
    torch.manual_seed(0)
    net = nn.SpectralOperator(4, 3, (4, 4), width, 2, kernel=3)
    sampler = Diffusion(Preconditioned(net, process), steps=STEPS)
    finer = Finer.fitted(DWT("bior4.4", (False, True)), sampler, x)
    optimiser = torch.optim.Adam(net.parameters(), 2e-3)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-2, steps)
    rng = np.random.default_rng(0)
    for step in range(steps):
        rows = torch.from_numpy(rng.choice(len(x), BATCH, replace=False))
        batch = x[rows].roll(int(rng.integers(x.shape[-1])), 3)
        kappa = torch.from_numpy(np.exp(rng.normal(0.5, 1.8, (BATCH, 1, 1, 1))))
        noise = Streams.of(0, BATCH).at("train", step)
        loss = finer.loss(batch, process.clock.time(kappa).clamp(0, 1), noise, levels=2).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        rate.step()
    net.requires_grad_(False)
    return finer


def interpolated(coarse: Tensor, factor: int, order: int) -> np.ndarray:
    """Splines through averages (B, 1, time, x), which stand for every ``factor``-th point."""
    found = []
    for film in coarse[:, 0].numpy():
        around = np.concatenate([film[:, -8:], film, film[:, :8]], axis=1)
        fine = [np.arange(n * factor) / factor for n in film.shape]
        mesh = np.meshgrid(fine[0], fine[1] + 8, indexing="ij")
        found.append(map_coordinates(around, mesh, order=order, mode="nearest"))
    return np.stack(found)


def run(report: Report, quick: bool, train: np.ndarray, truth: np.ndarray) -> None:
    """``train`` (N, 64, 64), ``truth`` (B, 128, 128)."""
    finer = trained(torch.from_numpy(train)[:, None], *((1200, 12) if quick else (2500, 16)))
    rows: list[dict[str, object]] = []
    size, below = np.sqrt((truth.astype(float) ** 2).mean((1, 2))), {}
    coarse = torch.from_numpy(truth)[:, None]
    for doublings in (1, 2):
        coarse, side = finer.split(coarse)[0], 128 // 2**doublings
        draws = [
            finer(film[None].expand(MEMBERS, -1, -1, -1), Streams.of(1, MEMBERS, k), doublings)
            for k, film in enumerate(coarse)
        ]
        members = torch.stack(draws)[:, :, 0].numpy()
        guesses = {
            "linear": interpolated(coarse, 2**doublings, 1),
            "cubic": interpolated(coarse, 2**doublings, 3),
            "drawn, the mean": members.mean(1),
        }
        error = {
            name: float((np.sqrt(((guess - truth) ** 2).mean((1, 2))) / size).mean())
            for name, guess in guesses.items()
        }
        pairs = zip(members, truth, strict=True)
        fair = np.array([float(crps(_labelled(m), _labelled(t))) for m, t in pairs])
        for name, value in error.items():
            score = float(np.abs(guesses[name] - truth).mean((1, 2)) @ (1 / size)) / len(size)
            rows.append({"from": f"{side} x {side}", "method": name, "error": value, "crps": score})
        rows[-1]["crps"] = float(np.mean(fair / size))
        below[doublings] = error["drawn, the mean"] / min(error["linear"], error["cubic"])
    report.table("Burgers films drawn on 128 x 128, trained on 64 x 64", rows)
    for doublings, ratio in below.items():
        name = f"Burgers, {doublings} doubling(s) to 128 x 128: error over the better interpolation"
        report.claim(name, ratio, 0, 1)


def _labelled(values: np.ndarray) -> xr.DataArray:
    dims = ("member", "time", "x") if values.ndim == 3 else ("time", "x")
    return xr.DataArray(values, dims=dims)
