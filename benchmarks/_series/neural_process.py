"""Draws of a Gaussian process at few irregular times, half of them known: networks and the oracle.

n ~ Poisson(8) cells, at least 5 and at most 50, at times uniform on (0, 1), covariance
exp(-d^2 / 0.05), the first half of a random order known. Every row but the oracle learns from
draws alone; none is told the kernel or its length. Laws are fitted by maximum likelihood to 1,000
draws, the families of a row being those that its name says; a conditional network is trained on
fresh draws on top of three of them, of which one has the family of the truth, one a rougher one
(Matern 5/2) and one is not fitted at all. CRPS is fair, pooled over the wanted cells; `wql 9` is
the quantile loss of 9 levels over the sum of absolute values. Three seeds of training and test
draws, mean and standard error.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
import xarray as xr
from _report import Report
from torch import Tensor

import sciddm as sd
from sciddm.nn import SetTransformer
from sciddm.random import Streams
from sciddm.series import GaussianSeries, Law, Panel, SeriesSampler, fitted
from sciddm.series.conditional import Conditional
from sciddm.series.fitting import likeliest
from sciddm.series.kernel import (
    Matern32,
    Matern52,
    Mixed,
    OrnsteinUhlenbeck,
    Shape,
    SquaredExponential,
    Term,
)
from sciddm.series.law import factor

GUESS = 0.3
"""Length where every fit starts, and that of the kernel that is not fitted."""
MEMBERS = 50
ORACLE, FITTED, ROUGH, WRONG = "oracle", "likeliest law", "Matern 5/2 fitted", "OU of length 0.3"
NET = "conditional network on "


def run(report: Report, quick: bool) -> None:
    """--quick: one seed, 300 test series, a short training on one law."""
    seeds, test = (1, 300) if quick else (3, 600)
    steps = {ROUGH: 120} if quick else {FITTED: 150, ROUGH: 500, WRONG: 500}
    with torch.random.fork_rng():
        found = [case(seed, test, steps) for seed in range(seeds)]
    lines = []
    for name, (_, evaluations) in found[0].items():
        scores = np.array([f[name][0] for f in found])
        line: dict[str, object] = {"method": name}
        for k, key in enumerate(("crps", "wql 9", "coverage 90")):
            line[key] = float(scores[:, k].mean())
            if seeds > 1 and k < 2:
                line["s.e." + " " * k] = float(scores[:, k].std(ddof=1) / math.sqrt(seeds))
        base = np.array([f[ORACLE][0][0] for f in found])
        line["over oracle"] = float((scores[:, 0] / base).mean())
        lines.append(line | {"members": MEMBERS, "evaluations": evaluations})
    report.table("neural process: draws of a Gaussian process at irregular times", lines)
    by_name = {str(line["method"]): line for line in lines}
    for name in steps:
        if name == WRONG:  # a row to learn from, not one to use
            continue
        row = by_name[NET + name]
        report.claim(f"neural process: CRPS over the oracle's, {NET}{name}",
                     float(str(row["over oracle"])), 0.0, 1.10)  # fmt: skip
        report.claim(f"neural process: 9-level WQL, {NET}{name}", float(str(row["wql 9"])), 0, 0.35)


def case(seed: int, count: int, steps: dict[str, int]) -> dict[str, tuple[list[float], float]]:
    """Scores and evaluations of every method."""
    train, test = draws(1000, seed, 1), draws(count, seed, 2)
    rough = [fitted(single(s, 0.01), train, steps=120) for s in (Matern52(GUESS),)]
    other = [OrnsteinUhlenbeck(GUESS), Matern32(GUESS), SquaredExponential(GUESS)]
    every = [*rough, *(fitted(single(s, 0.01), train, steps=120) for s in other)]
    laws: dict[str, Law] = {
        FITTED: likeliest(every, train),
        ROUGH: rough[0],
        WRONG: single(OrnsteinUhlenbeck(GUESS), 0.01),
    }
    made: dict[str, SeriesSampler] = {ORACLE: GaussianSeries(single(TRUTH, 0.0))}
    made |= {f"kriging: {name}": GaussianSeries(law) for name, law in laws.items()}
    made |= {NET + name: trained(laws[name], seed, n) for name, n in steps.items()}
    made["prior mean and spread"] = GaussianSeries(single(OrnsteinUhlenbeck(1e-9), 0.0))
    return {name: (score(s, test, seed), s.evaluations) for name, s in made.items()}


TRUTH = SquaredExponential(math.sqrt(0.025))


def single(shape: Shape, rest: float) -> Mixed:
    """One channel of variance 1 and a white rest."""
    none = torch.zeros(1, dtype=torch.float64)
    return Mixed((Term(shape, none[:, None][:, :0], none + 1),), none + rest)


def draws(count: int, *address: int) -> Panel:
    """``count`` draws of the truth, each at times of its own."""
    rng = np.random.default_rng([*address, 7])
    n = torch.from_numpy(rng.poisson(8, count).clip(5, 50))
    m = int(n.max())
    time = torch.from_numpy(rng.uniform(size=(count, m)))
    real = torch.arange(m) < n[:, None]
    order = torch.where(real, torch.from_numpy(rng.random((count, m))), 2.0)
    known = real & (order.argsort(1).argsort(1) < n[:, None] // 2)
    blank = torch.zeros_like(time)
    panel = Panel(time, blank.long(), blank, known, real)
    lower = factor(single(TRUTH, 0.0).covariance(panel))
    white = torch.from_numpy(rng.standard_normal((count, m)))
    return replace(panel, value=(lower @ white[..., None])[..., 0])


def trained(law: Law, seed: int, steps: int, rows: int = 64, rate: float = 5e-3) -> Conditional:
    """A network on ``law``, by AdamW on fresh draws."""
    torch.manual_seed(seed)
    net = SetTransformer(1, 0.1, 1.0, width=32, readers=1, writers=2)
    learner = Conditional(net, law, 1, steps=10)
    optimiser = torch.optim.AdamW(net.parameters(), rate, weight_decay=1e-3)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = (
            rate * min(1, (step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * step / steps))
        )
        panel = draws(rows, seed, 3, step)
        optimiser.zero_grad()
        learner.loss(panel, Streams.of(seed, rows, case=step), step / steps).mean().backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
    return learner


def score(sampler: SeriesSampler, test: Panel, seed: int) -> list[float]:
    """Fair CRPS, weighted quantile loss of 9 levels and coverage of 90 %."""
    members = range(MEMBERS)
    rows = range(len(test))
    cases, numbers = zip(*((i, j) for i in rows for j in members), strict=True)
    found = sampler.draw(test, Streams(seed, cases, numbers)).double()
    ens = _labelled(found.transpose(0, 1)[:, test.wanted], ("member", "cell"))
    truth = _labelled(test.value[test.wanted], ("cell",))
    loss = sd.score.weighted_quantile_loss(ens, truth, levels=9)
    return [float(sd.score.crps(ens, truth)), float(loss), float(sd.score.coverage(ens, truth))]


def _labelled(x: Tensor, dims: Sequence[str]) -> xr.DataArray:
    return xr.DataArray(x.numpy(), dims=dims)
