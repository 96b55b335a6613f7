"""Every picture of the site, made by the library: `python docs/pictures.py [NAME ...]`.

A picture is one function here. It writes ``docs/_static/NAME.png`` and returns the figures that it
measured, which are printed. What needs a trained model or a store that is not there is skipped with
a line; the page then says so in the picture's place.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STATIC = ROOT / "docs" / "_static"

import forecast_pictures  # noqa: E402
import limits_pictures  # noqa: E402
import matplotlib as mpl  # noqa: E402
import method_pictures  # noqa: E402
import numpy as np  # noqa: E402
import recovery_pictures  # noqa: E402
import series_pictures  # noqa: E402
import torch  # noqa: E402
import xarray as xr  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from PIL import Image  # noqa: E402
from recovery_pictures import present, scattered, shelf, trained  # noqa: E402

import sciddm as sd  # noqa: E402
from sciddm import config, plot, score  # noqa: E402
from sciddm.basis import Cosine  # noqa: E402
from sciddm.covariance import Covariance, Matern, PowerLaw, Spectral, White, ZeroMean  # noqa: E402
from sciddm.data import split, store  # noqa: E402
from sciddm.denoise import Context, Denoiser, Gaussian, Preconditioned  # noqa: E402
from sciddm.guide import DPS, Conditioned, linear_posterior  # noqa: E402
from sciddm.observe import Observation, points  # noqa: E402
from sciddm.process import VE, LogLinear  # noqa: E402
from sciddm.random import Streams  # noqa: E402
from sciddm.solve import Diffusion, Euler, Heun, Multistep, Solver  # noqa: E402

Figures = dict[str, float]


def maps(rows: list[list[np.ndarray]], titles: list[str], names: list[str], top: float) -> Figure:
    """Square maps on one symmetric colour scale, a title a column and a name a row."""
    fig = Figure(figsize=(1.75 * len(titles) + 0.9, 1.75 * len(rows) + 0.4), layout="constrained")
    axes = fig.subplots(len(rows), len(titles), squeeze=False)
    for (i, j), ax in np.ndenumerate(axes):
        image = ax.imshow(
            rows[i][j],
            vmin=-top,
            vmax=top,
            cmap=plot.FIELD,
            origin="lower",
            interpolation="nearest",
        )
        ax.set(xticks=[], yticks=[], title=titles[j] if i == 0 else "")
        if j == 0:
            ax.set_ylabel(names[i])
    fig.colorbar(image, ax=axes, shrink=0.6, aspect=30)
    return fig


def words() -> tuple[Figure, Figures]:
    """One field at three noise levels of two covariances, and what is known of it there."""
    law = Spectral(ZeroMean(PowerLaw(2.0, 3.0, 3.0)), (1.0, 1.0), Cosine())
    rows, names = [], []
    rough = Spectral(Matern(0.1, 1.5, 0.3), (1.0, 1.0), Cosine())
    noises: dict[str, Covariance] = {"white": White(), "Matern": rough}
    x = law.sample(torch.zeros(1, 1, 40, 40, dtype=torch.float64), Streams.of(3, 1))
    for name, noise in noises.items():
        process = VE(noise, LogLinear(1e-2, 1e2))
        denoiser = Gaussian(torch.zeros(()), law, process)
        noised, known = [x], [x]
        for kappa in (0.3, 1.0, 10.0):
            t = process.clock.time(torch.tensor(kappa, dtype=torch.float64))
            x_t, _ = process.forward(x, t, None, Streams.of(5, 1))
            noised.append(x_t * x.std() / x_t.std())
            known.append(denoiser(x_t, t, Context()))
        rows += [[f[0, 0].numpy() for f in fields] for fields in (noised, known)]
        names += [f"x_t, {name} noise", "E[X | x_t]"]
    titles = ["X", *(f"kappa = {k}" for k in ("0.3", "1", "10"))]
    return maps(rows, titles, names, 0.6), {}


def heard() -> tuple[Figure, Figures]:
    """How far one sensor is heard: its column of Cov[X | x_t] at four noise levels."""
    law = Spectral(ZeroMean(PowerLaw(2.0, 3.0, 3.0)), (1.0, 1.0), Cosine())
    prior = Gaussian(torch.zeros(()), law, VE(clock=LogLinear(1e-2, 1e3)))
    row = torch.zeros(1, 1, 64, 64, dtype=torch.float64)
    row[0, 0, 40, 24] = 1
    columns, titles = [], []
    for kappa in (100.0, 3.0, 0.3, 0.03):
        t = prior.process.clock.time(torch.tensor(kappa, dtype=torch.float64))
        column = prior.covariance(t)(row)[0, 0]
        columns.append((column / column.max()).numpy())
        titles.append(f"kappa = {kappa:g}\ns.d. here {float(column[40, 24].sqrt()):.3f}")
    return maps([columns], titles, ["covariance with\nthe sensor"], 1.0), {}


def wrong() -> tuple[Figure, Figures]:
    """Ranks of the truth in the exact posterior, and in three that are wrong on purpose."""
    ds = shelf("datasets", "gaussian_field").fields(64, 32)
    model = shelf("models", "gaussian_exact").build(ds)
    truth = shelf("datasets", "gaussian_field").fields(24, 32, 1)["field"]
    ens = sd.krige(model, scattered(truth, 0.03, 0.02, 0), members=63, seed=2)["field"]
    centre, width = ens.mean("member"), ens.std("member", ddof=1)
    samplers = {
        "exact": ens,
        "half the spread": centre + 0.5 * (ens - centre),
        "twice the spread": centre + 2.0 * (ens - centre),
        "shifted by 0.3 s.d.": ens + 0.3 * width,
    }
    fig, figures = Figure(figsize=(9.6, 2.9), layout="constrained"), {}
    for ax, (name, members) in zip(fig.subplots(1, 4, sharey=True), samplers.items(), strict=True):
        counts = score.rank_histogram(members, truth).values.reshape(16, 4).sum(1)
        ax.bar(np.arange(16), counts / counts.mean(), 1.0, color=plot.LINES[5], edgecolor="white")
        ax.axhline(1.0, color="black", lw=1, ls="--")
        covered, ratio = (float(f(members, truth)) for f in (score.coverage, score.spread_skill))
        ax.set_title(f"{name}\n90 % coverage {covered:.2f}\nspread/skill {ratio:.2f}")
        ax.set(xticks=[], xlabel="rank of the truth")
        figures |= {f"{name}: coverage": covered, f"{name}: spread/skill": ratio}
        figures[f"{name}: crps"] = float(score.crps(members, truth))
    fig.axes[0].set_ylabel("count / flat count")
    return fig, figures


def scalar(denoiser: Denoiser, solver: Solver, steps: int, members: int = 1500) -> np.ndarray:
    """Draws of one number under a guided denoiser."""
    draw = Diffusion(denoiser, solver, steps)((members, 1, 1), Context(), Streams.of(0, members))
    return draw.flatten().numpy()


def dps() -> tuple[Figure, Figures]:
    """X ~ N(0, 1) seen as 1 with error 0.5: what two rules draw, and the truth N(0.8, 0.2)."""
    prior = Gaussian(torch.zeros(()), White(), VE(clock=LogLinear(1e-2, 1e2)))
    seen = Observation(torch.ones(1), points([0], torch.zeros(1, 1), (1,)), torch.tensor(0.25))
    rules = {
        "moment matching, multistep": (Conditioned(prior, seen, prior), Multistep(), 50),
        "DPS, multistep": (DPS(prior, seen), Multistep(), 50),
        "DPS, ancestral": (DPS(prior, seen), Euler(eta=1.0), 100),
    }
    fig, figures = Figure(figsize=(9.0, 2.8), layout="constrained"), {}
    at = np.linspace(-1, 3, 300)
    for ax, (name, (guided, solver, steps)) in zip(
        fig.subplots(1, 3, sharex=True, sharey=True), rules.items(), strict=True
    ):
        draws = scalar(guided, solver, steps)
        ax.hist(draws, np.linspace(-1, 3, 61), density=True, color=plot.LINES[5], label="draws")
        exact = np.exp(-((at - 0.8) ** 2) / 0.4) / np.sqrt(0.4 * np.pi)
        ax.plot(at, exact, color="black", lw=1.3, ls="--", label="exact")
        ax.set(title=f"{name}\nmean {draws.mean():.2f}, variance {draws.var():.3f}", xlabel="x")
        ax.set_ylim(0, 2.2)
        figures |= {f"{name}: mean": draws.mean(), f"{name}: variance": draws.var()}
    fig.axes[0].set_ylabel("density")
    fig.axes[0].legend(loc="upper left")
    return fig, figures


def steps() -> tuple[Figure, Figures]:
    """Spread of the members over the exact spread, by solver and number of evaluations."""
    data = shelf("datasets", "gaussian_field")
    model = shelf("models", "gaussian_exact").build(data.fields(64, 32))
    truth = data.fields(1, 32, 1)["field"].isel(sample=0, drop=True)
    seen = scattered(truth, 0.03, 0.02, 0)
    _, _, observation = next(seen.cases(model.codec))
    prior = model.sampler.denoiser
    like = torch.zeros(64, 1, 32, 32)
    _, _, variance = linear_posterior(prior, observation, like[:1].double())
    guided = Conditioned(prior, observation, prior)
    solvers: dict[str, Solver] = {
        "multistep (default)": Multistep(),
        "Heun": Heun(),
        "Euler": Euler(),
        "ancestral": Euler(eta=1.0),
    }
    fig, figures = Figure(figsize=(5.6, 3.3), layout="constrained"), {}
    ax = fig.subplots()
    for i, (name, solver) in enumerate(solvers.items()):
        cost, ratio = [], []
        for evaluations in (10, 14, 20, 32, 50, 100):
            count = (evaluations + 1) // 2 if name == "Heun" else evaluations
            sampler = Diffusion(guided, solver, count)
            draws = sampler(like.shape, Context(), Streams.of(1, len(like)))
            cost.append(sampler.evaluations)
            ratio.append(float(torch.sqrt(draws.var(0).mean() / variance.mean())))
            figures[f"{name}, {cost[-1]} evaluations"] = ratio[-1]
        style = {"color": plot.LINES[i], "ls": plot.DASHES[i], "lw": 1.6}
        ax.semilogx(cost, ratio, marker="o", ms=3.5, label=name, **style)
    ax.axhline(1.0, color="black", lw=0.8)
    ax.set(xlabel="network evaluations a member", ylabel="spread / exact spread", ylim=(0.5, 1.7))
    ax.set_xticks([10, 20, 50, 100], ["10", "20", "50", "100"], minor=False)
    ax.xaxis.set_minor_formatter("")
    ax.legend()
    return fig, figures


def base() -> tuple[Figure, Figures]:
    """A small network trained with and without the Gaussian base: its error over the exact one."""
    ds = shelf("datasets", "poisson").fields(600, 32)
    build = shelf("models", "poisson").build
    models = {"with base": build(ds), "without base": build(ds, base=False)}
    held = split.select(ds, "validation")
    logs = {name: learned(model, ds, 120) for name, model in models.items()}
    return over_exact(models["with base"], held, logs)


def curves() -> tuple[Figure, Figures]:
    """The same of the shipped model, from the kept logs of the two runs."""
    runs = {"with base": "poisson", "without base": "poisson_plain"}
    logs = {}
    for name, run in runs.items():
        logs[name] = logged(run)
    # the first of the fields that the trainer validates on
    held = shelf("datasets", "poisson").fields(256, 64, 0, 9000)
    return over_exact(trained("poisson"), held, logs)


def short() -> tuple[Figure, Figures]:
    """The validation losses of the t2m model, over the error of its base: a short record."""
    log = logged("t2m_uk")
    lines = xr.DataArray(
        np.array([line["by_level"] for line in log]),
        dims=("step", "kappa"),
        coords={
            "step": [line["step"] for line in log],
            "kappa": np.exp(log[0]["log_kappa"]),
        },
        attrs={"long_name": "squared error / base"},
    ).isel(kappa=[2, 5, 8, 10])
    mean = [line["validation"] for line in log]
    figures = {f"step {line['step']}": value for line, value in zip(log, mean, strict=True)}
    fig = plot.learning_curves({"validation": lines})
    for ax in fig.axes:
        ax.set_yscale("linear")
        ax.axhline(1.0, color="black", lw=0.8)
    return fig, figures


def logged(run: str) -> list[dict]:
    """The log of a training run, as it was kept beside these pages."""
    path = present(ROOT / "docs" / "curves" / f"{run}.jsonl", f"sciddm train configs/{run}.toml")
    return [json.loads(line) for line in path.read_text().splitlines()]


def over_exact(
    model: sd.Model, held: xr.Dataset, logs: dict[str, list[dict]]
) -> tuple[Figure, Figures]:
    """Losses at four noise levels, over those of the exact denoiser on the same fields and noise.

    ``model`` has the base of the first log; the second started from no base.
    """
    from sciddm.data.codec import encoded
    from sciddm.objective import validation_losses

    exact = shelf("models", "poisson").exact(model)
    # with nothing to add, a network on the true law is the exact denoiser
    oracle = Preconditioned(
        lambda x, log_kappa, context: torch.zeros_like(x[:, :1]),  # type: ignore[arg-type]
        exact.sampler.denoiser.process,
        exact.sampler.denoiser,
    )
    x = encoded(held, exact.codec, "sample")[:256]
    with torch.no_grad():
        log_kappa, floor = validation_losses(oracle, x, None)
    times = oracle.process.times(len(floor)).flip(0)
    kappa = log_kappa.exp()
    starts = {
        "with base": model.sampler.denoiser.scale(times, x),
        "without base": kappa / (1 + kappa**2).sqrt(),
    }
    lines = {}
    for name, log in logs.items():
        unit = (starts[name] / oracle.scale(times, x)) ** 2 / floor
        lines[name] = xr.DataArray(
            np.array([line["by_level"] for line in log]) * unit.numpy(),
            dims=("step", "kappa"),
            coords={"step": [line["step"] for line in log], "kappa": kappa.numpy()},
            attrs={"long_name": "squared error / exact"},
        ).isel(kappa=[2, 5, 8, 10])
    figures = {
        f"{name}, kappa {float(k):.3g}": float(line.sel(kappa=k)[-1])
        for name, line in lines.items()
        for k in line["kappa"].values
    }
    return plot.learning_curves(lines), figures


def learned(model: sd.Model, ds: xr.Dataset, steps: int) -> list[dict]:
    """The log of a short training, without a word from the trainer."""
    from sciddm.train import fit

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        numbers = config.Train(
            out=f"{folder}/model", run=f"{folder}/run", steps=steps, warmup=20, ema=0.95,
            learning_rate=2e-3, noise_mean=0.5, noise_std=2.2, validation_every=15,
            checkpoint_every=steps, accelerator="cpu",
        )  # fmt: skip
        with open(os.devnull, "w") as silent, contextlib.redirect_stdout(silent):
            fit(model, ds, numbers)
        return [json.loads(line) for line in (numbers.folder / "log.jsonl").open()]


def own() -> tuple[Figure, Figures]:
    """What `sciddm demo --data ... --variable t2m` draws, on the store of the ERA5 recipe."""
    demo = shelf("pipelines", "demo")
    path = present(ROOT / "stores" / "t2m_uk.zarr", "sciddm make era5_t2m_uk stores/t2m_uk.zarr")
    truth, values, std, name, methods = demo.own(str(path), "t2m", 0)
    post = next(iter(methods.values()))(sd.Observed(values, std=std), 64, 0)
    return plot.recovery(truth[name], post[name], values), demo.scores(post[name], truth[name])


def poisson() -> tuple[Figure, Figures]:
    """The trained Poisson model: a source from 3 % of the solution."""
    demo = shelf("pipelines", "demo")
    model = trained("poisson")
    truth = shelf("datasets", "poisson").fields(1, 64, 1000).isel(sample=0, drop=True)
    std = 1e-3 * float(np.sqrt((truth["solution"] ** 2).mean()))
    seen = scattered(truth["solution"], 0.03, std, 3)
    post = sd.recover(model, seen, members=64, seed=0)
    picture = plot.recovery(truth["coefficient"], post["coefficient"], seen.values)
    figures = demo.scores(post["coefficient"], truth["coefficient"])
    return picture, figures | {"misfit_sd": post.attrs["misfit_sd"]}


def darcy() -> tuple[Figure, Figures]:
    """The trained Darcy model: two phases from 3 % of the pressure, error 1 % of its s.d."""
    demo = shelf("pipelines", "demo")
    model = trained("darcy")
    truth = shelf("datasets", "darcy").fields(1, 64, 1000).isel(sample=0, drop=True)
    seen = scattered(truth["solution"], 0.03, 0.01 * float(truth["solution"].std()), 3)
    post = sd.recover(model, seen, members=32, seed=0)
    picture = plot.recovery(truth["coefficient"], post["coefficient"], seen.values)
    figures = demo.scores(post["coefficient"], truth["coefficient"])
    return picture, figures | {"misfit_sd": post.attrs["misfit_sd"]}


def swath() -> tuple[Figure, Figures]:
    """The trained t2m model and optimal interpolation: 14 columns of some hours were not seen."""
    model = trained("t2m_uk")
    path = present(ROOT / "stores" / "t2m_uk.zarr", "sciddm make era5_t2m_uk stores/t2m_uk.zarr")
    truth = split.select(store.open(path), "test")["t2m"].isel(time=slice(12, None, 36)).load()
    rng = np.random.default_rng(0)
    seen = truth + 0.1 * rng.standard_normal(truth.shape)
    gap = {"longitude": slice(18, 32)}
    seen[{"time": slice(None), **gap}] = np.nan
    figures = {}
    for name, draw in (("optimal interpolation", sd.krige), ("network", sd.recover)):
        post = draw(model, sd.Observed(seen, std=0.1), members=32, seed=0)["t2m"]
        figures[f"{name}: crps in the gap"] = float(score.crps(post.isel(gap), truth.isel(gap)))
    return plot.recovery(*(f.isel(time=1, drop=True) for f in (truth, post, seen))), figures


PICTURES: dict[str, Callable[[], tuple[Figure, Figures]]] = (
    {
        f.__name__: f
        for f in (
            *(words, heard, wrong, dps, steps, base, curves, short, own, poisson, darcy, swath),
            *limits_pictures.PICTURES,
            *method_pictures.PICTURES,
        )
    }
    | recovery_pictures.PICTURES
    | forecast_pictures.PICTURES
    | series_pictures.PICTURES
)


def lighten(path: Path) -> None:
    """The same picture in 256 colours, about a third of the bytes."""
    with Image.open(path) as picture:
        small = picture.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE)
    small.save(path, optimize=True)


def main(names: list[str]) -> None:
    """Make the pictures ``names``, or all."""
    torch.set_num_threads(1)
    for name in names or PICTURES:
        start = time.monotonic()
        try:
            with mpl.rc_context(plot.STYLE):
                figure, figures = PICTURES[name]()
                wide = figure.get_size_inches()[0] > 11
                path = plot.save(figure, STATIC / f"{name}.png", dpi=96 if wide else 100)
            lighten(path)
        except Exception as fault:  # a page is better without a picture than a site without pages
            print(f"skipped {name}.png: {fault}", flush=True)
            continue
        seconds, size = time.monotonic() - start, path.stat().st_size / 1000
        print(f"{name}.png: {seconds:.1f} s, {size:.0f} kB", flush=True)
        for key, value in figures.items():
            print(f"    {key}: {value:.4g}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
