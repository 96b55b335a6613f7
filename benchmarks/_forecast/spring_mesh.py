"""A mesh of springs from its start to 2 pi: every engine trained here, with one budget.

Films of `datasets/spring_mesh.py` at full size: 100 to train on, 3 to choose every number on, 15 of
the same law and 15 beyond it (displacements of 0.35 .. 0.45) to test on. Nothing is random after
the start, so what the members should differ by is what the network has not learned. Forecasts
start from the first frame, at rest, and go on over 12 frames 67 steps apart, 804 steps in all; two
of these frames are about the published block of 134 steps.

One budget: the same films a step and steps for every engine, networks of about the same number of
weights; the two of DYffusion share the steps, so that steps x weights are the same. A quarter of
the training films begin where forecasts do, at rest. All learn what one linear law does not know.
The CPU seconds of the training differ, and are said.

Scores are in the units of the data, means over all nodes, fields and frames: fair CRPS, squared
error of the mean, unbiased spread/skill, sqrt(variance / (squared error of the mean - variance /
members)).

Published, on other draws of the same law, with another budget (CRPS with M^2 pairs, 50 members,
804 frames): dropout 0.0138 and DYffusion 0.0103, spread/skill 1.01 and 1.13; beyond the law 0.0448
and 0.0292, 0.70 and 0.82. Cachay et al., NeurIPS 2023, https://arxiv.org/abs/2306.01984.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from _report import Report
from torch import Tensor

from sciddm import fit, nn, recipe
from sciddm.denoise import Context, Gaussian, Preconditioned
from sciddm.forecasters import (
    Autoregressive,
    Boundary,
    Dropout,
    DYffusion,
    Forecaster,
    Learner,
    Linear,
    Perturbed,
    Rolling,
    Scored,
    linear_inverse,
)
from sciddm.forecasters.fitting import left_over
from sciddm.process import VE, VP, CosineAlpha, LogLinear
from sciddm.random import Streams
from sciddm.solve import Adams, GaussianForm

ROOT = Path(__file__).resolve().parents[2]
NAMES = ("p_x", "p_y", "q_x", "q_y")
EVERY, LEADS = 67, 12
WIDTH, MODES, BLOCKS, BATCH, RATE = 32, 5, 3, 32, 3e-3
STARTS, AT_REST = 6, 0.25  # films begin at every 6th frame of the first 67; so many at the first
AHEAD, STEPS = 2, 400
RATES, AMPLITUDES = (0.03, 0.1, 0.2), (0.05, 0.1, 0.2, 0.3, 0.4)
ENGINES = ("DYffusion", "dropout", "rolling", "plain network", "DYffusion, dropout", "scored",
           "autoregressive")  # fmt: skip


@dataclass(frozen=True, eq=False)
class Films:
    """Films (N, 4, T, 10, 10) over ``std`` (4, 1, 1, 1): to train on, and the whole ones (from the
    first frame) to choose on, to test on, and of another law."""

    train: Tensor
    validation: Tensor
    test: Tensor
    beyond: Tensor
    std: Tensor

    @staticmethod
    def make(trained: int, tested: int) -> Films:
        shelf = recipe.load(ROOT / "datasets" / "spring_mesh.py", "datasets")
        own = tensor(shelf.fields(118, 10))
        beyond = tensor(shelf.fields(15, 10, seed=1, ring=(0.35, 0.45)))[:tested]
        std = own[:100].std((0, 2, 3, 4)).view(4, 1, 1, 1)
        own, beyond = own / std, beyond / std
        frames = EVERY * torch.arange(LEADS)
        train = torch.cat([own[:trained, :, frames + k] for k in range(0, EVERY, STARTS)])
        whole = slice(None, None, EVERY)
        return Films(
            train, own[100:103, :, whole], own[103 : 103 + tested, :, whole],
            beyond[:, :, whole], std,
        )  # fmt: skip


def tensor(ds: xr.Dataset) -> Tensor:
    return torch.from_numpy(np.stack([ds[v].values for v in NAMES], axis=1))


def network(inputs: int, seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    return nn.SpectralOperator(inputs, 4, (MODES, MODES), WIDTH, BLOCKS, kernel=3)


def fixed() -> Boundary:
    mask = torch.zeros(4, 10, 10, dtype=torch.bool)
    mask[:, -1] = True
    return Boundary(mask)


def learner(name: str, films: Films) -> Learner:
    """An untrained engine."""
    held = fixed()
    law = Linear(linear_inverse(films.train, 360, ridge=0.01))
    near, far = (
        left_over(films.train, law, k, 4000)[:, :, -1].square().mean((0, 2, 3)).sqrt().view(4, 1, 1)
        for k in (1, AHEAD)
    )
    if name == "DYffusion":
        pair = network(10), network(10, 1)
        # one draw for the whole forecast: what is not known is the network, not the future
        return DYffusion(
            *pair, AHEAD, noise=2, mean=law, scale=far, share=0.3, held=True, boundary=held
        )
    if name == "DYffusion, dropout":
        pair = nn.Dropped(network(8), 0.05), nn.Dropped(network(8, 1), 0.05)
        return DYffusion(
            *pair, AHEAD, noise=0, mean=law, scale=far, draws=1, share=0.3, held=True, boundary=held
        )
    if name == "dropout":
        return Dropout(nn.Dropped(network(8), 0.1), mean=law, scale=near, boundary=held)
    if name == "plain network":
        return Dropout(network(8), mean=law, scale=near, boundary=held)
    if name == "scored":
        return Scored(network(6), law, near, noises=2, boundary=held)
    left = left_over(films.train, law, limit=20_000)[:, :, 0] / near
    prior, scale = fit.eof(left, 360), near.flatten()
    if name == "rolling":
        torch.manual_seed(0)
        film = nn.FilmNet(8, 4, (MODES, MODES), (WIDTH,), BLOCKS)
        return Rolling(film, VP(prior, CosineAlpha()), law, scale, width=3, boundary=held)
    process = VE(clock=LogLinear(0.01, 100.0))
    base = Gaussian(torch.zeros(()), prior, process)
    return Autoregressive(
        Preconditioned(network(12), process, base), law, scale[:, None], boundary=held,
        solver=Adams(2, form=GaussianForm(base)), steps=8,
    )  # fmt: skip


def fitted(engine: Learner, films: Tensor, steps: int) -> tuple[Learner, float]:
    """The trained engine, its weights averaged over the last steps, and the CPU seconds it took."""
    began, average = time.process_time(), deepcopy(engine)
    rule = torch.optim.AdamW(engine.parameters(), RATE, betas=(0.9, 0.99), weight_decay=1e-5)
    edges = [0.0, *engine.stages, 1.0]
    for step in range(steps):
        share, rng = step / steps, np.random.default_rng([0, step])
        low, high = max(e for e in edges if e <= share), min(e for e in edges if e > share)
        done = (share - low) / (high - low)  # each stage warms up and cools down
        warm = min(1.0, (share - low) * steps / 40 + 0.025)
        rule.param_groups[0]["lr"] = RATE * warm * (0.505 + 0.495 * math.cos(math.pi * done))
        which = rng.integers(len(films), size=BATCH)
        first = rng.integers(films.shape[2] - engine.window + 1, size=BATCH)
        rest = rng.random(BATCH) < AT_REST
        first[rest], which[rest] = 0, which[rest] % (len(films) // len(range(0, EVERY, STARTS)))
        film = torch.stack([films[i, :, a : a + engine.window]
                            for i, a in zip(which, first, strict=True)])  # fmt: skip
        own = Streams.of(0, BATCH).inside("training step", step)
        loss = engine.loss(film, Context(), own, share).mean()
        rule.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(engine.parameters(), 1.0)
        rule.step()
        with torch.no_grad():
            for slow, fast in zip(average.parameters(), engine.parameters(), strict=True):
                slow.lerp_(fast, 1 - min(0.99, (1 + step) / (10 + step)))
    return average.eval().requires_grad_(False), time.process_time() - began


def drawn(forecaster: Forecaster, films: Tensor, members: int) -> tuple[Tensor, float]:
    """Members (M, N, 4, 12, 10, 10) from the first frame of each film, and the seconds a frame."""
    began, out = time.process_time(), []
    for case, film in enumerate(films):
        past = film[None, :, :1].expand(members, -1, forecaster.history, -1, -1)
        shape, rng = (members, 4, LEADS, 10, 10), Streams.of(1, members, case=case)
        out.append(forecaster(shape, Context(past=past), rng))
    seconds = (time.process_time() - began) / (members * len(films) * LEADS)
    return torch.stack(out, dim=1), seconds


def scores(ens: Tensor, truth: Tensor, std: Tensor) -> dict[str, float]:
    """Fair CRPS, squared error of the mean, unbiased spread/skill and that of the last frame."""
    members, ens, truth = len(ens), (ens * std).double(), (truth * std).double()
    order = 2.0 * torch.arange(members) - (members - 1)
    pairs = torch.einsum("m,m...->...", order.double(), ens.sort(0).values)
    crps = (ens - truth).abs().mean(0) - pairs / (members * (members - 1))
    miss, spread = (ens.mean(0) - truth).square(), ens.var(0)
    left = miss.mean() - spread.mean() / members
    return {
        "crps": float(crps.mean()),
        "crps_first": float(crps[:, :, 0].mean()),
        "crps_last": float(crps[:, :, -1].mean()),
        "mse": float(miss.mean()),
        "spread_skill": math.sqrt(float(spread.mean() / left)),
    }


def best(
    make: Callable[[float], Forecaster], values: Sequence[float], films: Films
) -> tuple[Forecaster, float]:
    """The forecaster of the number whose CRPS on the validation films is least."""
    truth, found = films.validation[:, :, 1:], []
    for value in values:
        ens, _ = drawn(make(value), films.validation, 16)
        found.append((scores(ens, truth, films.std)["crps"], value))
    return make(min(found)[1]), min(found)[1]


def masked(engine: Dropout, rate: float) -> Dropout:
    """A network trained with dropout, at another rate."""
    inner = engine.network.backbone
    assert isinstance(inner, torch.nn.Module)
    own = nn.Dropped(inner, rate)
    return Dropout(own, mean=engine.mean, scale=engine.scale, boundary=engine.boundary)


def line(
    name: str, forecaster: Forecaster | None, films: Films, members: int, numbers: str = ""
) -> dict[str, object]:
    """The scores of a method on both test sets; of persistence for None."""
    out: dict[str, object] = {"method": name, "chosen": numbers}
    for where, part in (("", films.test), ("beyond_", films.beyond)):
        ens, seconds = part[None, :, :, :1].expand(2, -1, -1, LEADS, -1, -1), 0.0
        if forecaster is not None:
            ens, seconds = drawn(forecaster, part, members)
        found = scores(ens, part[:, :, 1:], films.std)
        out |= {where + k: v for k, v in found.items()}
    print(f"{name} {numbers}: {out['crps']:.5f}, {out['spread_skill']:.3f}", flush=True)
    cost = 0.0 if forecaster is None else forecaster.evaluations
    many = 1 if forecaster is None else members
    return out | {"members": many, "evaluations": cost, "cpu_s_a_frame": seconds}


def rows(films: Films, steps: int, members: int) -> list[dict[str, object]]:
    """Every method on both test sets."""
    law = linear_inverse(films.train, 360, ridge=0.01, boundary=fixed())
    found = [line("persistence", None, films, members)]
    found.append(line("linear inverse model", law, films, members))
    for name in ENGINES:
        engine, seconds = fitted(learner(name, films), films.train, steps)
        weights = sum(p.numel() for p in engine.parameters())
        trained = {"steps": steps, "weights": weights, "training_cpu_s": seconds}
        if name == "dropout":
            assert isinstance(engine, Dropout)
            chosen, rate = best(partial(masked, engine), RATES, films)
            found.append(line(name, chosen, films, members, f"rate {rate:g}") | trained)
            continue
        found.append(line(name, engine, films, members) | trained)
        if name == "plain network":
            chosen, std = best(partial(Perturbed, engine), AMPLITUDES, films)
            more = line("perturbed beginnings", chosen, films, members, f"s.d. {std:g}")
            found.append(more | trained)
    return found


def run(report: Report, quick: bool) -> None:
    """One table for each law of the start, and the claims."""
    films = Films.make(100, 4 if quick else 15)
    found = rows(films, 60 if quick else STEPS, 12 if quick else 24)
    cost = ("members", "evaluations", "cpu_s_a_frame", "steps", "weights", "training_cpu_s")
    for title, where in (("the test films", ""), ("films beyond the law of training", "beyond_")):
        shown = [
            {
                "method": line["method"],
                "fair_crps": line[where + "crps"],
                "at_frame_1": line[where + "crps_first"],
                "at_frame_12": line[where + "crps_last"],
                "mse_of_mean": line[where + "mse"],
                "spread_skill": line[where + "spread_skill"],
                **{k: line.get(k) for k in (*cost, "chosen")},
            }
            for line in found
        ]
        report.table(f"Spring mesh, {title}, start to 2 pi", shown)
    by = {str(line["method"]): line for line in found}
    own = {n: float(str(line["crps"])) for n, line in by.items()}
    name = "spring mesh"
    report.claim(
        f"{name}: CRPS of DYffusion over that of dropout",
        own["DYffusion"] / own["dropout"], 0, 1,
    )  # fmt: skip
    report.claim(
        f"{name}: spread/skill of DYffusion", float(str(by["DYffusion"]["spread_skill"])), 0.8, 1.2
    )
    report.claim(
        f"{name}: CRPS of rolling over that of DYffusion", own["rolling"] / own["DYffusion"], 0, 1
    )
