"""Pictures of the gallery: recovered states of PDEs, both directions, and flows without a model.

A picture is one function, as in `pictures.py`, which makes them:

    PROBLEM_inverse, PROBLEM_forward    truth, sensors, mean, spread, members and ranks of one field
    PROBLEM_calibration                 ranks and coverage by level over several fields
    kolmogorov, ...                     samples of the data sets that have no model

Fields are of a seed that no model was trained on. What needs a trained model that is not there is
skipped with a line.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import sciddm as sd
from sciddm import plot, recipe, score
from sciddm.errors import InputError
from sciddm.footprint import Line
from sciddm.pde import GrayScott
from sciddm.wavelet import DWT

ROOT = Path(__file__).resolve().parent.parent
Figures = dict[str, float]
SEED = 1000
LEVELS = np.arange(0.1, 0.95, 0.1)


def shelf(kind: str, name: str) -> ModuleType:
    """A file of the repository's shelves."""
    return recipe.load(ROOT / kind / f"{name}.py", kind)


def trained(name: str) -> sd.Model:
    """A saved model of the repository."""
    return sd.load(present(ROOT / "models" / name, f"sciddm train configs/{name}.toml"))


def present(path: Path, how: str) -> Path:
    """The path, or what makes it."""
    if not path.exists():
        raise InputError(f"{path.relative_to(ROOT)} is not there; `{how}` makes it.")
    return path


def scattered(field: xr.DataArray, share: float, std: float, seed: int) -> sd.Observed:
    """A share of the grid points of the two last dims, the same in every case, with errors."""
    rng = np.random.default_rng(seed)
    dims = [str(d) for d in field.dims[-2:]]
    shape = tuple(field.sizes[d] for d in dims)
    at = rng.choice(shape[0] * shape[1], round(share * shape[0] * shape[1]), replace=False)
    place = np.unravel_index(at, shape)
    seen = field.isel(
        {d: xr.DataArray(i, dims="station") for d, i in zip(dims, place, strict=True)}
    )
    return sd.Observed(seen + std * rng.standard_normal(seen.shape), std=std)


@dataclass(frozen=True)
class Direction:
    """What is seen, with an error of so much of its rms, and what is asked for."""

    seen: str
    wanted: str
    error: float


@dataclass(frozen=True)
class Problem:
    """A data set, its model, and the directions in which it is recovered."""

    data: str
    directions: dict[str, Direction]
    numbers: tuple[tuple[str, float], ...] = ()

    def fields(self, samples: int) -> xr.Dataset:
        made: xr.Dataset = shelf("datasets", self.data).fields(
            samples, 64, SEED, **dict(self.numbers)
        )
        return made

    def observed(self, truth: xr.Dataset, name: str, seed: int) -> sd.Observed:
        way = self.directions[name]
        std = way.error * float(np.sqrt((truth[way.seen] ** 2).mean()))
        return scattered(truth[way.seen], 0.03, std, seed)


def both(first: str, second: str, error: float) -> dict[str, Direction]:
    """The two directions of an equation that makes ``second`` of ``first``."""
    return {
        "inverse": Direction(second, first, error),
        "forward": Direction(first, second, error),
    }


PROBLEMS = {
    "poisson": Problem("poisson", both("coefficient", "solution", 1e-3)),
    "helmholtz": Problem("helmholtz", both("coefficient", "solution", 1e-3)),
    "darcy": Problem("darcy", both("coefficient", "solution", 1e-2)),
    "navier_stokes": Problem("navier_stokes", both("initial", "final", 1e-3)),
    "burgers": Problem(
        "burgers",
        {"film": Direction("velocity", "velocity", 1e-2)},
        (("viscosity", 0.002),),
    ),
}


def recovered(name: str, way: str) -> tuple[Figure, Figures]:
    """One field that the model was not trained on, from 3 % of the points."""
    problem, model = PROBLEMS[name], trained(name)
    direction = problem.directions[way]
    truth = problem.fields(1).isel(sample=0, drop=True)
    seen = problem.observed(truth, way, 3)
    post = sd.recover(model, seen, members=32, seed=0, steps=20)
    wanted, field = post[direction.wanted], truth[direction.wanted]
    return plot.recovery(field, wanted, seen.values), figures(wanted, field, post)


def figures(members: xr.DataArray, truth: xr.DataArray, post: xr.Dataset) -> Figures:
    """Scores of one case or of several, errors relative to the rms of the truth."""
    norm = float(np.sqrt((truth**2).mean()))
    return {
        "error of the mean": float(score.rmse(members, truth)) / norm,
        "error of one member": float(score.rmse(members.isel(member=[0]), truth)) / norm,
        "fair CRPS": float(score.crps(members, truth)) / norm,
        "spread/skill": float(score.spread_skill(members, truth)),
        "90 % coverage": float(score.coverage(members, truth, level=0.9)),
        "misfit_sd": float(post.attrs["misfit_sd"]),
    }


def calibration(name: str, fields: int = 16) -> tuple[Figure, Figures]:
    """Ranks of the truth and coverage by level, over several fields with common sensors."""
    problem, model = PROBLEMS[name], trained(name)
    truth = problem.fields(fields)
    ways = problem.directions
    fig = Figure(figsize=(3.1 * (len(ways) + 1), 2.9), layout="constrained")
    axes = fig.subplots(1, len(ways) + 1)
    found: Figures = {}
    for i, (way, direction) in enumerate(ways.items()):
        seen = problem.observed(truth, way, 4)
        post = sd.recover(model, seen, members=15, seed=1, steps=20)
        members = post[direction.wanted].transpose("member", "sample", ...)
        field = truth[direction.wanted]
        ranks(axes[i], members, field, f"{direction.wanted} from {direction.seen}")
        covered = [float(score.coverage(members, field, level=float(v))) for v in LEVELS]
        style = {"color": plot.LINES[i], "ls": plot.DASHES[i], "marker": "os"[i], "ms": 4}
        axes[-1].plot(LEVELS, covered, label=f"{direction.wanted}", **style)
        found |= {f"{way}: {k}": v for k, v in figures(members, field, post).items()}
    axes[0].set_ylabel("count / flat count")
    last = axes[-1]
    last.plot([0, 1], [0, 1], color="black", lw=0.8, label="calibrated", zorder=0)
    last.set(xlim=(0, 1), ylim=(0, 1), xlabel="level of the interval", title="coverage")
    last.set(ylabel="truths inside", aspect="equal")
    last.legend(loc="upper left")
    return fig, found


def ranks(ax: Axes, members: xr.DataArray, truth: xr.DataArray, title: str) -> None:
    """Sixteen bars: how often the truth has a rank, over what is flat."""
    counts = score.rank_histogram(members, truth).values
    height = counts / counts.mean()
    ax.bar(np.arange(16), height, 1.0, color=plot.LINES[5], edgecolor="white")
    ax.axhline(1.0, color="black", lw=1, ls="--")
    ax.set(
        xticks=[], xlabel="rank of the truth", title=title, ylim=(0, max(1.6, 1.1 * height.max()))
    )


def panels(
    rows: list[list[xr.DataArray]], titles: list[list[str]], aspect: float = 1.0, label: str = ""
) -> Figure:
    """Maps on one colour scale, each with its title; axes are those of the last two dims."""
    top = len(rows[0])
    size = (2.4 * top + 0.9, (2.4 * aspect + 0.35) * len(rows) + 0.2)
    fig = Figure(figsize=size, layout="constrained")
    axes = fig.subplots(len(rows), top, squeeze=False)
    every = [field for row in rows for field in row]
    low, high = min(float(f.min()) for f in every), max(float(f.max()) for f in every)
    for (i, j), ax in np.ndenumerate(axes):
        field = rows[i][j]
        vertical, horizontal = (str(d) for d in field.dims)
        image = ax.pcolormesh(
            field[horizontal], field[vertical], field.values,
            vmin=low, vmax=high, cmap=plot.FIELD, shading="nearest", rasterized=True,
        )  # fmt: skip
        ax.set(title=titles[i][j], box_aspect=aspect)
        ax.set(xlabel=horizontal if i == len(rows) - 1 else "", ylabel=vertical if j == 0 else "")
        ax.tick_params(labelbottom=i == len(rows) - 1, labelleft=j == 0)
    fig.colorbar(image, ax=axes, shrink=0.7, aspect=30, label=label)
    return fig


def kolmogorov() -> tuple[Figure, Figures]:
    """Two samples of the forced flow, now and one unit later."""
    ds = shelf("datasets", "kolmogorov").fields(2, 128, SEED)
    rows = [[ds["initial"][i], ds["final"][i]] for i in range(2)]
    titles = [[f"sample {i}, vorticity", "one time unit later"] for i in range(2)]
    low, high = (float(f(ds["initial"])) for f in (np.min, np.max))
    return panels(rows, titles, label="vorticity"), {"least": low, "largest": high}


def kuramoto_sivashinsky() -> tuple[Figure, Figures]:
    """Three samples in space and time."""
    velocity = shelf("datasets", "kuramoto_sivashinsky").fields(3, 128, SEED)["velocity"]
    titles = [[f"sample {i}" for i in range(3)]]
    return panels([list(velocity)], titles, 0.8, "u"), {"s.d.": float(velocity.std())}


def gray_scott() -> tuple[Figure, Figures]:
    """Spots that divide: the second substance at four times, from one seeded square."""
    n, times = 128, (0.0, 500.0, 1500.0, 4000.0)
    flow = GrayScott(time=times[-1], step=2.0)
    x = torch.zeros(1, 2, n, n, dtype=torch.float64)
    x[:, 0] = 1.0
    noise = torch.rand(2, 20, 20, generator=torch.manual_seed(0), dtype=torch.float64)
    x[0, 0, 54:74, 54:74] = 0.5 + 0.02 * noise[0]
    x[0, 1, 54:74, 54:74] = 0.25 + 0.02 * noise[1]
    out = flow.trajectory(x, times)[0, 1]
    place = flow.length * np.arange(n) / n
    shots = [xr.DataArray(f.numpy(), {"y": place, "x": place}, ("y", "x")) for f in out]
    fig = panels([shots], [[f"time {t:g}" for t in times]], label="second substance")
    return fig, {"mean at the end": float(out[-1].mean())}


def obstacle_flow() -> tuple[Figure, Figures]:
    """Three samples of the flow round a cylinder, at two times."""
    ds = shelf("datasets", "obstacle_flow").fields(3, 128, SEED)
    rows, titles = [], []
    for name, time in (("early", 0.4), ("late", 0.8)):
        rows.append([ds[name][i] / ds["inflow"][i] for i in range(3)])
        heads = [f"inflow {float(v):.2g}, time {time}" for v in ds["inflow"]]
        titles.append(heads)
    return panels(rows, titles, label="speed / inflow"), {}


def footprints() -> tuple[Figure, Figures]:
    """A source from a few rays through the solution and a few points of the source itself."""
    data, model = shelf("datasets", "poisson"), trained("poisson")
    truth = data.fields(1, 64, SEED).isel(sample=0, drop=True)
    source, rng = truth["coefficient"], np.random.default_rng(0)
    angle, off = rng.uniform(0, np.pi, 24), rng.uniform(-0.3, 0.3, 24)
    reach = 0.45 / np.maximum(abs(np.cos(angle)), abs(np.sin(angle))) - 0.5 * abs(off)
    middle = {"y": 0.5 + off * np.cos(angle), "x": 0.5 - off * np.sin(angle)}
    away = {"y": reach * np.sin(angle), "x": reach * np.cos(angle)}
    rays = Line(
        {d: np.clip(middle[d] - away[d], 0, 1) for d in "yx"},
        {d: np.clip(middle[d] + away[d], 0, 1) for d in "yx"},
    )
    through = rays(source)
    std = 0.01 * float(through.std())
    points = scattered(source, 0.005, 0.02, 5)
    noisy = through + std * rng.standard_normal(through.sizes["sensor"])
    along = sd.Observed(noisy, std=std, footprint=rays)
    fig = Figure(figsize=(10.4, 2.7), layout="constrained")
    axes = fig.subplots(1, 4)
    found: Figures = {}
    low, high = float(source.min()), float(source.max())
    maps = {"truth, rays and points": source}
    for name, seen in {"20 points": points, "24 rays": along, "both": points & along}.items():
        post = sd.recover(model, seen, members=32, seed=0, steps=20)
        field = post["coefficient"]
        found |= {f"{name}: {k}": v for k, v in figures(field, source, post).items()}
        maps[f"mean from {name}"] = field.mean("member")
    for ax, (title, field) in zip(axes, maps.items(), strict=True):
        image = ax.pcolormesh(
            field["x"], field["y"], field.values,
            vmin=low, vmax=high, cmap=plot.FIELD, shading="nearest", rasterized=True,
        )  # fmt: skip
        ax.set(title=title, aspect="equal", xticks=[0, 0.5, 1], yticks=[0, 0.5, 1], xlabel="x")
        ax.tick_params(labelleft=ax is axes[0])
    for i in range(24):
        ends = ([rays.start[d][i], rays.stop[d][i]] for d in "xy")  # type: ignore[index]
        axes[0].plot(*ends, color="white", lw=0.7)
    axes[0].scatter(
        points.values["x"], points.values["y"], c=points.values, s=22,
        vmin=low, vmax=high, cmap=plot.FIELD, edgecolors="black", linewidths=0.7, zorder=3,
    )  # fmt: skip
    axes[0].set(ylabel="y", xlim=(0, 1), ylim=(0, 1))
    fig.colorbar(image, ax=axes, shrink=0.75, aspect=25, label="source")
    return fig, found


def bands() -> tuple[Figure, Figures]:
    """A film with shocks, and its wavelet sub-bands over the s.d. of each."""
    film = PROBLEMS["burgers"].fields(1)["velocity"][0]
    transform = DWT("bior2.4", (False, True))
    nested = transform.forward(torch.from_numpy(film.values).double()[None, None])
    names = ("averages", "details along x", "details along time", "details along both")
    shown, found, energy = [film / film.std()], {}, float(nested.square().sum())
    for name, band in zip(names, transform.bands(nested), strict=True):
        values = band.flatten(0, -3)[0]
        scale = float(values.square().mean().sqrt())
        place = {d: film[d].values[::2] for d in ("time", "x")}
        shown.append(xr.DataArray((values / scale).numpy(), place, ("time", "x")))
        found[f"{name}: scale"] = scale
        found[f"{name}: share of the energy"] = float(values.square().sum()) / energy
    fig = Figure(figsize=(12.4, 2.9), layout="constrained")
    for ax, field, name in zip(fig.subplots(1, 5), shown, ("velocity", *names), strict=True):
        image = ax.pcolormesh(
            field["x"], field["time"], field.values, vmin=-2.5, vmax=2.5,
            cmap=plot.FIELD, shading="nearest", rasterized=True,
        )  # fmt: skip
        ax.set(title=name, xlabel="x", box_aspect=1)
        ax.tick_params(labelleft=name == "velocity")
    fig.axes[0].set_ylabel("time")
    fig.colorbar(image, ax=fig.axes, shrink=0.8, aspect=25, extend="both", label="over its rms")
    return fig, found


PICTURES: dict[str, Callable[[], tuple[Figure, Figures]]] = {
    **{
        f"{name}_{way}": partial(recovered, name, way)
        for name, problem in PROBLEMS.items()
        for way in problem.directions
    },
    **{f"{name}_calibration": partial(calibration, name) for name in PROBLEMS},
    **{f.__name__: f for f in (kolmogorov, kuramoto_sivashinsky, gray_scott, obstacle_flow)},
    **{f.__name__: f for f in (footprints, bands)},
}
