"""Pictures of observations, events, particles, processes, grids and likelihoods.

A picture is one function, as in `pictures.py`, which makes them. All of it is exact laws of one
series or of a few numbers: nothing is trained, and each takes seconds.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats
from torch import Tensor

from sciddm import plot
from sciddm.covariance import Matern, Spectral, White
from sciddm.denoise import Context, Denoiser, Gaussian, Mixture
from sciddm.guide import Conditioned, Event, Exceeds, event_probability
from sciddm.likelihood import gaussian_log_prob, log_prob
from sciddm.observe import Function, Noise, Observation, Points, noise, points
from sciddm.particle import Matched, Reweighted, TwistedSMC
from sciddm.process import (
    VE,
    VP,
    Bridge,
    Capped,
    Clocked,
    Drifting,
    Flow,
    Interpolant,
    LinearBeta,
    LinearSigma,
    LogLinear,
    MeanReverting,
    Process,
    SubVP,
)
from sciddm.random import Streams
from sciddm.solve import (
    CosineGrid,
    Diffusion,
    Euler,
    Grid,
    Heun,
    LogKappa,
    Multistep,
    Rho,
    Singlestep,
    Solver,
    Uniform,
    align,
    refine,
    trajectory,
)

Figures = dict[str, float]
DOUBLE = torch.float64
DAYS = 64
SERIES = Gaussian(
    torch.zeros(()), Spectral(Matern(8.0, 1.5, 2.0), (float(DAYS),)), VE(clock=LogLinear(1e-3, 1e3))
)
"""A temperature anomaly of 64 days: s.d. 2 K, correlated over 8 days."""
ONE = Gaussian(torch.tensor(0.3), White(1.3), VE(clock=LogLinear(1e-2, 1e2)))


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=DOUBLE)


def laws() -> tuple[Figure, Figures]:
    """A series with one gross error, under Gaussian errors and under Student's."""
    like = torch.zeros(1, 1, DAYS, dtype=DOUBLE)
    truth = SERIES.sample(like, Streams.of(5, 1))
    day = torch.arange(2, DAYS, 5)
    std, wrong = 0.4, 6
    at = points([0] * len(day), day[:, None].double(), (DAYS,))
    y = at(truth)[0] + std * torch.randn(len(day), generator=torch.manual_seed(1), dtype=DOUBLE)
    errors: dict[str, Noise] = {
        "Gaussian errors": noise.Gaussian(number(std**2)),
        "Student-t errors, 4 degrees of freedom": noise.StudentT(number(std), 4.0),
    }
    fig, figures = Figure(figsize=(9.2, 3.4), layout="constrained"), Figures()
    true = truth.flatten().numpy()
    gross = torch.where(torch.arange(len(day)) == wrong, 8.0, 0.0).to(y)
    for ax, (name, law) in zip(fig.subplots(1, 2, sharey=True), errors.items(), strict=True):
        clean, (seen, ens) = drawn(y, at, law)[1], drawn(y + gross, at, law)
        fan(ax, ens)
        ax.plot(true, color="black", lw=1.3, label="truth")
        ax.errorbar(
            day, seen.y, std, fmt="o", ms=4, lw=1, color=plot.LINES[1], label="seen, 1 s.d."
        )
        ax.plot(day[wrong], seen.y[wrong], "o", ms=12, mfc="none", mec=plot.LINES[1])
        ax.set(xlabel="day", title=name)
        low, high = np.quantile(ens, [0.05, 0.95], axis=0)
        figures |= {
            f"{name.split()[0]}: {key}": float(value)
            for key, value in {
                "rms error of the mean, K": ((ens.mean(0) - true) ** 2).mean() ** 0.5,
                "rms spread, K": ens.var(0, ddof=1).mean() ** 0.5,
                "truth in the 90 % band": ((low < true) & (true < high)).mean(),
                "misfit": seen.misfit(torch.from_numpy(ens)[:, None]).mean(),
                "rms spread without the gross error, K": clean.var(0, ddof=1).mean() ** 0.5,
            }.items()
        }
    fig.axes[0].set_ylabel("temperature anomaly, K")
    fig.axes[0].annotate(
        "gross error",
        (float(day[wrong]), float(seen.y[wrong])),
        (9, -3),
        textcoords="offset points",
    )
    fig.legend(*fig.axes[1].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return fig, figures


def drawn(y: Tensor, at: Points, law: Noise) -> tuple[Observation, np.ndarray]:
    """256 series (member, time) given the values."""
    seen = Observation(y, at, law)
    x = Diffusion(Conditioned(SERIES, seen, SERIES))((256, 1, DAYS), Context(), Streams.of(0, 256))
    return seen, x[:, 0].double().numpy()


def fan(ax: Axes, ens: np.ndarray) -> None:
    """Bands of 50 % and 90 % of the members (member, time), and their mean."""
    low, q1, q3, high = np.quantile(ens, [0.05, 0.25, 0.75, 0.95], axis=0)
    place = np.arange(ens.shape[1])
    blue = plot.LINES[0]
    ax.fill_between(place, low, high, color=blue, alpha=0.2, lw=0, label="90 % of members")
    ax.fill_between(place, q1, q3, color=blue, alpha=0.35, lw=0, label="50 % of members")
    ax.plot(ens.mean(0), color=blue, lw=1.3, ls="--", label="mean of members")


def heat(x: Tensor) -> Tensor:
    """The mean over ten days of the series."""
    return x[:, 0, 27:37].mean(-1)


def events() -> tuple[Figure, Figures]:
    """Estimated over exact probability of a hot spell, and two series in which it happens."""
    unit = torch.eye(DAYS, dtype=DOUBLE).view(DAYS, 1, DAYS)
    std = float(heat(SERIES.prior(unit[27:37].mean(0, keepdim=True)))) ** 0.5
    chances, seeds, members, steps = (0.1, 0.03, 0.01, 0.003, 0.001), 5, 256, 12
    like = torch.zeros(members, 1, DAYS, dtype=DOUBLE)
    streams = [Streams.of(seed, members) for seed in range(seeds)]
    plain = [Diffusion(SERIES, steps=steps)(like.shape, Context(), rng) for rng in streams]
    fig, figures = Figure(figsize=(9.2, 3.3), layout="constrained"), {}
    left, right = fig.subplots(1, 2, width_ratios=[1, 1.25])
    apart = 1.06 ** np.arange(-seeds, 0)
    for chance in chances:
        event = Event(heat, std * float(stats.norm.isf(chance)))
        found = [
            event_probability(SERIES, event, SERIES, like, rng, steps=steps) for rng in streams
        ]
        estimates = {
            "plain": [float(event.happens(x).double().mean()) / chance for x in plain],
            "guided": [f.probability / chance for f in found],
        }
        for i, (name, values) in enumerate(estimates.items()):
            left.semilogx(
                chance * (apart if i else 1 / apart), values, "so"[i], ms=4.5, mfc="none",
                color=plot.LINES[1 - i], clip_on=False,
                label=f"256 {name} draws, {seeds} seeds" if chance == 0.1 else None,
            )  # fmt: skip
            worst = max(values, key=lambda ratio: abs(ratio - 1))
            figures[f"exact {chance}: {name}, worst of {seeds} seeds"] = chance * worst
    left.axhline(1.0, color="black", lw=1, ls="--", label="normal tail")
    left.set(xlabel="exact probability of the event", ylabel="estimate / exact", ylim=(0, 3.3))
    left.set_xticks(chances, [f"{c:g}" for c in chances])
    left.xaxis.set_minor_formatter("")
    left.tick_params(which="minor", bottom=False)
    left.invert_xaxis()
    left.legend(loc="upper left")
    draw = Diffusion(Exceeds(SERIES, event, SERIES), steps=32)
    x = draw((64, 1, DAYS), Context(), Streams.of(1, 64))
    right.axvspan(27, 36, color="0.9", lw=0, label="ten days of the event")
    right.plot(plain[0][:12, 0].T, color="0.65", lw=0.7)
    right.plot([], color="0.65", lw=0.7, label="draws of the prior")
    for k, label in enumerate(("one draw given the event", "another")):
        right.plot(x[k, 0], color=plot.LINES[k], ls=plot.DASHES[k], lw=1.8, label=label)
    right.plot(
        [27, 36], [event.threshold] * 2, color="black", lw=2, label="threshold of their mean"
    )
    right.set(xlabel="day", ylabel="temperature anomaly, K", ylim=(-6.5, 13))
    right.legend(loc="upper left", ncols=2)
    figures["least mean of 64 draws given the event, over the threshold"] = float(
        heat(x).min() / event.threshold
    )
    return fig, figures


def cloud() -> tuple[Figure, Figures]:
    """X ~ N(0.3, 1.69) of which the square is seen as 1.5 with error 0.2: two modes."""
    seen = Observation(number(1.5).view(1), Function(lambda x: x.flatten(1) ** 2), number(0.04))
    z = torch.linspace(-3, 3, 2001, dtype=DOUBLE)
    log_p = seen.log_prob(z.view(-1, 1, 1)) + torch.distributions.Normal(0.3, 1.3).log_prob(z)
    exact, width = torch.softmax(log_p, 0), float(z[1] - z[0])
    figures = {
        "exact: share of the right mode": float(exact[z > 0].sum()),
        "exact: log evidence": float(log_p.logsumexp(0)) + math.log(width),
    }
    # one number is a rising function of its noise: quantiles of it are draws without their scatter
    count = 140
    start = torch.special.ndtri((torch.arange(count) + 0.5) / count).double().view(-1, 1, 1)
    times = ONE.process.times(20)
    guided = Conditioned(ONE, seen, ONE)
    *_, matched = trajectory(guided, 100 * start, times, Context(), Multistep())
    draws = {"moment matching": (matched.flatten(), torch.full((count,), 1 / count, dtype=DOUBLE))}
    twists = {
        "cloud, Reweighted": Reweighted(ONE, seen.log_prob, ONE, onset=0.1),
        "cloud, Matched": Matched(ONE, seen, ONE),
    }
    for name, twist in twists.items():
        c = TwistedSMC(twist, 32, dtype=DOUBLE).cloud((3000, 1, 1), Context(), Streams.of(0, 3000))
        draws[name] = c.particles.flatten(), c.log_weight.exp()
        figures[f"{name}: log evidence"] = c.log_evidence
        figures[f"{name}: least effective share"] = min(c.effective)
    fig = Figure(figsize=(9.2, 2.9), layout="constrained")
    bins = np.linspace(-2.2, 2.2, 89)
    axes = fig.subplots(1, 3, sharex=True, sharey=True)
    for ax, (name, (x, weight)) in zip(axes, draws.items(), strict=True):
        share = float(weight[x > 0].sum())
        ax.hist(x, bins, density=True, weights=weight, color=plot.LINES[5], label="draws")
        ax.plot(z, exact / width, color="black", lw=1.2, ls="--", label="exact")
        ax.set(title=f"{name}\n{share:.2f} in the right mode", xlabel="x", xlim=(-2.2, 2.2))
        figures[f"{name}: share of the right mode"] = share
    axes[0].set_ylabel("density")
    axes[0].legend(loc="upper left")
    return fig, figures


def processes() -> tuple[Figure, Figures]:
    """alpha, beta and sigma of every process over its own time."""
    drift = Drifting()
    per_frame = torch.tensor([[0.0], [0.5], [1.0]])
    per_cell = torch.tensor([[0.5], [2.0], [40.0]])
    flow = LinearSigma(1e-3)
    kinds: dict[str, Process] = {
        "VE()": VE(clock=LogLinear(0.01, 40.0)),
        "VP()": VP(clock=LinearBeta()),
        "SubVP()": SubVP(clock=LinearBeta()),
        "Flow()": Flow(clock=flow),
        "MeanReverting(spread=0.5)": MeanReverting(clock=LinearBeta(spread=0.5), spread=0.5),
        "Drifting()": Drifting(
            clock=LinearBeta(2 * drift.rate, 2 * drift.rate, 0.03, drift.spread)
        ),
        "Interpolant(spread=1)": Interpolant(clock=LinearSigma(1e-3, 1.0, 0.5)),
        "Bridge(VE(), end=1)": Bridge(VE(clock=LogLinear(0.01, 40.0)), 1.0),
        "Clocked(Flow()), 3 frames": Clocked(Flow(clock=flow), per_frame),
        "Capped(VP()), 3 cells": Capped(VP(clock=LogLinear(0.01, 40.0)), per_cell),
    }
    t = torch.linspace(0, 1, 201, dtype=DOUBLE)
    fig = Figure(figsize=(10.4, 4.4), layout="constrained")
    axes = fig.subplots(2, 5, sharex=True, sharey=True)
    names = ("alpha, of the field", "beta, of the anchor", "sigma, of the noise")
    for ax, (title, process) in zip(axes.flat, kinds.items(), strict=True):
        for i, values in enumerate(process.coefficients(t)):
            if i == 1 and not process.anchored:
                continue
            rows = values.reshape(-1, len(t))
            for row, shade in zip(rows, np.linspace(1, 0.45, len(rows)), strict=True):
                ax.plot(t, row, color=plot.LINES[i], ls=plot.DASHES[i], alpha=shade, lw=1.6)
        ax.set_title(title)
        ax.set_ylim(-0.03, 1.3)
    axes[0, 0].annotate("sigma to 40", (0.6, 1.2))
    for i, name in enumerate(names):
        axes[0, 0].plot([], color=plot.LINES[i], ls=plot.DASHES[i], label=name)
    for ax in axes[1]:
        ax.set_xlabel("time t")
    for ax in axes[:, 0]:
        ax.set_ylabel("weight in x_t")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return fig, {}


def grids() -> tuple[Figure, Figures]:
    """Where twelve times lie on six grids, and what two solvers lose on each."""
    prior = Spectral(Matern(8.0, 1.5), (float(DAYS),))
    law = Gaussian(torch.zeros(()), prior, VP(clock=LinearBeta()))
    process, count = law.process, 12
    high, low, largest = 60.0, 0.012, float(prior.eigenvalues((DAYS,)).max()) ** 0.5
    like = torch.zeros(48, 1, DAYS, dtype=DOUBLE)
    solvers: dict[str, Solver] = {"Euler()": Euler(), "Multistep()": Multistep()}
    first = process.times(2, high, low)[0]
    x = process.start(like, first, None, Streams.of(0, 48))
    found: dict[str, Grid] = {
        "LogKappa()": LogKappa(),
        "Rho(7)": Rho(7.0),
        "CosineGrid()": CosineGrid(),
        "Uniform(), own time of VP": Uniform(),
        "align, for Euler": align(law.expected_error(like[:1]), count, high, low, detail=largest),
        "refine, for Multistep": refine(law, Multistep(), x, count, kappa_max=high, kappa_min=low),
    }
    # other noise than that on which `refine` chose
    x = process.start(like, first, None, Streams.of(1, 48))
    last = process.times(2, high, low)[1]
    exact = law(law.flow(x, first, last), last, Context())
    fig, figures = Figure(figsize=(9.2, 3.0), layout="constrained"), {}
    left, right = fig.subplots(1, 2, width_ratios=[1.5, 1], sharey=True)
    for row, (name, grid) in enumerate(found.items()):
        times = grid.times(process, count, high, low)
        left.semilogx(process.kappa(times), [row] * count, "|", ms=13, mew=1.6, color="black")
        for i, (label, solver) in enumerate(solvers.items()):
            *_, draw = trajectory(law, x, times, Context(), solver)
            error = 100 * float(
                (draw - exact).square().mean().sqrt() / exact.square().mean().sqrt()
            )
            right.semilogx(
                error, row, "os"[i], color=plot.LINES[i], label=label if row == 0 else None
            )
            figures[f"{name}, {label}: error, %"] = error
    left.set_yticks(range(len(found)), list(found))
    left.set_xticks([10, 1, 0.1], ["10", "1", "0.1"])
    left.invert_xaxis()
    left.set_ylim(len(found) - 0.5, -0.5)
    left.set(xlabel="noise level kappa, from the start of a draw to its end")
    right.set(xlabel="error of a draw at 12 evaluations, % of its rms")
    right.set_xticks([0.5, 1, 2, 5, 10, 20], ["0.5", "1", "2", "5", "10", "20"])
    right.xaxis.set_minor_formatter("")
    right.grid(axis="y", color="0.9")
    right.legend(loc="center left")
    return fig, figures


def likelihood() -> tuple[Figure, Figures]:
    """Error of a log-likelihood in nats per dimension, by solver and evaluations."""
    clock = LogLinear(0.02, 1000.0)
    size, rows = 32, 8
    law = Gaussian(
        torch.linspace(-1, 1, size).double().view(1, size),
        Spectral(Matern(8.0, 1.5, 1.2), (float(size),)), VP(clock=clock),
    )  # fmt: skip
    like = torch.zeros(rows, 1, size, dtype=DOUBLE)
    x = law.sample(like, Streams.of(0, rows)) + 0.02 * White().sample(like, Streams.of(1, rows))
    means = 3 * torch.randn(3, 1, 4, generator=torch.manual_seed(3), dtype=DOUBLE)
    weights = torch.tensor([0.5, 0.3, 0.2], dtype=DOUBLE)
    mixture = Mixture(means, weights, 0.4, VP(clock=LogLinear(0.05, 300.0)))
    noised = torch.randn(9, 1, 4, generator=torch.manual_seed(4), dtype=DOUBLE)
    humps = means.repeat_interleave(3, 0) + 0.6 * noised
    variance = 0.4**2 + 0.05**2
    square = (humps[:, None] - means[None]).square().sum((-1, -2))
    parts = weights.log() - 0.5 * square / variance - 2 * math.log(2 * math.pi * variance)
    problems: dict[str, tuple[Denoiser, Tensor, Tensor]] = {
        "Gaussian field, 32 points": (law, x, gaussian_log_prob(law, x, number(0.02))),
        "three modes in 4 dimensions": (mixture, humps, parts.logsumexp(1)),
    }
    solvers: dict[str, tuple[int, Solver]] = {
        "Euler, order 1": (1, Euler()),
        "Multistep, order 2": (1, Multistep()),
        "Heun, order 2": (2, Heun()),
        "Singlestep(3), order 3": (3, Singlestep(3)),
    }
    fig, figures = Figure(figsize=(9.2, 3.1), layout="constrained"), {}
    axes = fig.subplots(1, 2, sharex=True, sharey=True)
    for ax, (title, (prior, fields, truth)) in zip(axes, problems.items(), strict=True):
        for i, (name, (each, solver)) in enumerate(solvers.items()):
            cost, error = [], []
            for evaluations in (24, 48, 96, 192, 384):
                steps = evaluations // each
                log_p = log_prob(prior, fields, steps=steps, solver=solver)
                cost.append(solver.evaluations(steps))
                error.append(float((log_p - truth).abs().max()) / fields[0].numel())
            style = {"color": plot.LINES[i], "ls": plot.DASHES[i], "lw": 1.6}
            ax.loglog(cost, error, marker="o", ms=3.5, label=name, **style)
            figures[f"{title}, {name.split(',')[0]}, {cost[3]} evaluations"] = error[3]
        ax.set(title=title, xlabel="network evaluations")
        ax.set_xticks([24, 48, 96, 192, 384], ["24", "48", "96", "192", "384"])
        ax.xaxis.set_minor_formatter("")
        ax.grid(axis="y", color="0.92")
    axes[0].set_ylabel("largest error, nats per dimension")
    axes[0].legend(loc="lower left")
    return fig, figures


PICTURES = (laws, events, cloud, processes, grids, likelihood)
