"""Forecasts with labels, drawn in memory or streamed to zarr.

The frames that follow a past are drawn block after block: some members of some starts, walked
through all leads. A network call always has the same number of rows, which depends on the model
alone, and the noise of a row is addressed by its start and its member: a member is the same to the
bit whatever else is drawn with it, and the first N members of a larger ensemble are the same.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import xarray as xr
import zarr
from torch import Tensor

from sciddm.data import checks, disk, manifest
from sciddm.data import store as stores
from sciddm.data.axis import said
from sciddm.data.films import static
from sciddm.denoise import Context
from sciddm.draws import BLOCK
from sciddm.errors import InputError, RunError
from sciddm.model import Model
from sciddm.outlook import Outlook, blank
from sciddm.random import SCHEME, Streams
from sciddm.task import Lead
from sciddm.tree import Encoder

FAR = 100.0
"""Training s.d. from the training mean beyond which a value is no forecast: the member diverged."""
DRIFT = (3.0, 9.0)
"""Mean (in training s.d.) and variance (in that of training) of the last frames, from which a
warning is said; a variance of less than one part in a hundred is also one."""
PIECE_BYTES = 1 << 25
"""Size of what is drawn before it is written: it sets how many leads a chunk holds."""

Progress = Callable[[int, int], None]
Layout = Callable[[xr.Dataset], xr.Dataset]
Region = dict[str, slice]


@dataclass(frozen=True, eq=False)
class Piece:
    """What was drawn: values by variable of one region, dims (films, starts, member, lead_time,
    *grid) in the user's own order of the grid, and what `drift` is made of."""

    region: Region
    values: Mapping[str, np.ndarray]
    sums: list[list[float]]


def rows_of(model: Model) -> int:
    """Rows of a network call: `BLOCK`, or more of small fields, which one call hardly feels."""
    points = math.prod(model.fields.grid.shape)
    return BLOCK * max(1, min(8, 4096 // points))


def chunks(job: Outlook) -> dict[str, int]:
    """Sizes of the regions that are drawn at a time, by dim."""
    rows, codec = rows_of(job.model), job.model.fields
    members = min(rows, job.members)
    size = {dim: 1 for dim in job.cases}
    if size and job.seen is None:  # what is seen differs from case to case
        many = "init_time" if job.cases.get("init_time", 1) > 1 else next(iter(size))
        size[many] = min(job.cases[many], rows // members)
    frame = 4 * rows * len(codec.variables) * math.prod(codec.grid.shape)
    leads = max(1, min(job.steps, PIECE_BYTES // frame))
    return size | {"member": members, "lead_time": leads}


def stream(
    job: Outlook, skip: Callable[[Region], bool] = lambda region: False
) -> Iterator[Piece | None]:
    """Draw block after block, lead after lead; None stands for a region that ``skip`` leaves out.

    Raises `RunError` for a frame that is not finite or lies more than `FAR` from training.
    """
    sizes = job.cases | {"member": job.members}
    parts = chunks(job)
    cuts = {dim: _cut(n, parts[dim]) for dim, n in sizes.items()}
    leads = _cut(job.steps, parts["lead_time"])
    for block in _product(cuts):
        regions = [block | {"lead_time": part} for part in leads]
        if all(skip(region) for region in regions):
            yield from (None for _ in regions)
            continue
        yield from _walk(job, block, regions, skip)


def _walk(
    job: Outlook, block: Region, regions: list[Region], skip: Callable[[Region], bool]
) -> Iterator[Piece | None]:
    films = np.arange(job.pasts.shape[0])[block.get(job.films, slice(None))]
    starts = np.arange(len(job.starts))[block.get("init_time", slice(None))]
    members = np.arange(block["member"].start, block["member"].stop)
    grids = np.meshgrid(films, starts, members, indexing="ij")
    rows = rows_of(job.model)
    film, start, member = (np.pad(g.reshape(-1), (0, rows - g.size), mode="edge") for g in grids)
    count, shape = grids[0].size, grids[0].shape
    context = _context(job, film, start)
    address = tuple(_address(job, f, s) for f, s in zip(film, start, strict=True))
    rng = Streams(job.seed, address, tuple(int(m) for m in member))
    forecaster = job.guided(int(film[0]), int(start[0]))
    codec, frames = job.model.fields, forecaster.frames(context, rng)
    late = job.steps - max(1, job.steps // 10)
    for region in regions:
        leads = range(region["lead_time"].start, region["lead_time"].stop)
        values = np.empty((len(leads), count, len(codec.variables), *codec.grid.shape), np.float32)
        sums = torch.zeros(3, codec.channels, dtype=torch.float64)
        for k, x in zip(leads, islice(frames, len(leads)), strict=True):
            x = x[:count]
            _check(job, x, k, film, start, member)
            values[k - leads.start] = codec.finish(codec.physical(x)).cpu().numpy()
            if k >= late:
                sums += _sums(x, codec.mask)
        if skip(region):
            yield None
            continue
        named = {}
        for i, name in enumerate(codec.variables):
            part = np.moveaxis(values[:, :, i], 0, 1).reshape(*shape, len(leads), *codec.grid.shape)
            named[name] = job.frames.back(name, part)
        yield Piece(region, named, sums.tolist())


def _context(job: Outlook, film: np.ndarray, start: np.ndarray) -> Context:
    """What the forecaster is told, a row for each of ``film`` and ``start``."""
    fields = static(job.model.forcings)
    known = None
    if job.known is not None:
        values, place = job.known
        known = values[:, torch.from_numpy(place[start])].transpose(0, 1)
    return Context(
        past=job.pasts[torch.from_numpy(film), torch.from_numpy(start)].contiguous(),
        fields=None if fields is None else fields.expand(len(film), *fields.shape[1:]),
        forcings=known,
    )


def _address(job: Outlook, film: int, start: int) -> int:
    """The number of a case: of its own film and date, wherever they stand among others."""
    time = job.frames.axis.times[job.starts[start]]
    words = f"{job.frames.labels[film]}|{said(time)}"
    return int.from_bytes(hashlib.sha256(words.encode()).digest()[:8], "big") >> 1


def _check(
    job: Outlook, x: Tensor, k: int, film: np.ndarray, start: np.ndarray, member: np.ndarray
) -> None:
    top = x.abs().flatten(1).amax(1)
    bad = ~(top <= FAR)  # NaN too
    if not bool(bad.any()):
        return
    i = int(bad.nonzero()[0])
    lead = job.frames.axis.ahead(job.starts[start[i]], [k + 1])[0]
    case = f" of {job.frames.sample} {job.frames.labels[film[i]]}" if job.frames.sample else ""
    what = f"{float(top[i]):.3g} training s.d." if bool(torch.isfinite(top[i])) else "not finite"
    raise RunError(
        f"Member {member[i]}{case} of the start {said(job.frames.axis.times[job.starts[start[i]]])}"
        f" diverged at lead step {k + 1} ({said(lead)}): a value is {what}, expected at most "
        f"{FAR:g}. Nothing of it was kept; ask fewer steps, or train longer rollouts."
    )


def _sums(x: Tensor, mask: Tensor | None) -> Tensor:
    """(3, C): how many values, their sum and the sum of their squares."""
    x = x.double()
    where = torch.ones_like(x) if mask is None else mask.to(x).expand_as(x)
    return torch.stack([(where * x**p).transpose(0, 1).flatten(1).sum(1) for p in range(3)])


def drift(sums: list[list[list[float]]]) -> dict[str, list[float]]:
    """Attributes: mean and variance of the last tenth of the frames, of every channel, in the s.d.
    and the variance of the training data."""
    count, first, second = torch.tensor(sums, dtype=torch.float64).sum(0)
    mean = first / count.clamp_min(1)
    variance = second / count.clamp_min(1) - mean**2
    if float(mean.abs().max()) > DRIFT[0] or not 0.01 <= float(variance.max()) <= DRIFT[1]:
        checks.warn(
            f"The last frames lie far from the training data: mean {float(mean.abs().max()):.2g} "
            f"s.d. away, variance {float(variance.max()):.2g} of that in training."
        )
    return {
        "drift_mean": [round(v, 4) for v in mean.tolist()],
        "drift_variance": [round(v, 4) for v in variance.tolist()],
    }


def draw(job: Outlook, progress: Progress = lambda done, total: None) -> xr.Dataset:
    """The whole forecast in memory: dims (films, init_time, member, lead_time, *grid)."""
    ds = template(job)
    dims = [str(d) for d in next(iter(ds.data_vars.values())).dims]
    for name in ds.data_vars:
        ds[name] = ds[name].copy(data=np.empty(ds[name].shape, np.float32))
    sums, total = [], _total(job)
    for done, piece in enumerate(stream(job), start=1):
        assert piece is not None  # nothing is left out
        where = tuple(piece.region.get(dim, slice(None)) for dim in dims)
        for name, values in piece.values.items():
            ds[name].values[where] = values.reshape(ds[name].values[where].shape)
        sums.append(piece.sums)
        progress(done, total)
    return ds.assign_attrs(drift(sums))


def run(
    job: Outlook,
    store: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    layout: Layout = lambda ds: ds,
    progress: Progress = lambda done, total: None,
) -> xr.Dataset:
    """Stream the forecast to a zarr store, piece by piece, and return it lazily.

    A run that was killed goes on with ``resume=True`` to the same bits: finished blocks are not
    drawn again; the leads of an unfinished one are walked again and those that are there kept.
    layout : names on request, such as `sciddm.data.convention.weatherbench2`; it may rename dims
    and coordinates, and keeps their order.

    Raises `InputError` before anything is written, also for a store that another job began.
    """
    store = Path(store)
    plain = template(job)
    final = layout(plain.assign_attrs(job=_digest(job)))
    first = next(iter(plain.data_vars))
    if resume and store.exists():
        finished = stores.open(store)
        if finished.attrs.get("job") != final.attrs["job"]:
            raise InputError(f"{store} holds the draws of another job; choose another name.")
        stores.finalize(store)  # what a kill at the very end left behind
        return finished
    if stores.done(store) and not resume:
        raise InputError(
            f"{store} was begun by an earlier run; say resume, or remove its .partial."
        )
    word = dict(zip(map(str, plain[first].dims), map(str, final[first].dims), strict=True))
    stores.create(
        final, store, chunks={word[d]: n for d, n in chunks(job).items()}, overwrite=overwrite
    )
    there = stores.done(store)

    def named(region: Region) -> Region:
        return {word[dim]: part for dim, part in region.items()}

    pieces = stream(job, lambda region: stores.region_key(named(region)) in there)
    try:
        for count, piece in enumerate(pieces, start=1):
            if piece is not None:
                _put(store, piece, named(piece.region), final)
            progress(count, _total(job))
    except InputError:
        if not stores.done(store):
            stores.discard(store)
        raise
    _sum_drift(store)
    stores.finalize(store)
    return stores.open(store)


def _put(store: Path, piece: Piece, region: Region, final: xr.Dataset) -> None:
    """Keep the sums of a piece beside the unfinished store, and write it."""
    folder = store.with_name(f"{store.name}.partial") / "drift"
    folder.mkdir(exist_ok=True)
    disk.write_json(folder / f"{stores.region_key(region)}.json", piece.sums)
    ds = xr.Dataset()
    for name, values in piece.values.items():
        like = final[name]
        shape = [
            region[d].stop - region[d].start if d in region else n for d, n in like.sizes.items()
        ]
        ds[name] = (like.dims, values.reshape(shape))
    stores.put(store, ds, region)


def _sum_drift(store: Path) -> None:
    partial = store.with_name(f"{store.name}.partial")
    files = sorted((partial / "drift").glob("*.json"))
    if files:
        group = zarr.open_group(partial / "store", mode="r+", use_consolidated=False)
        group.attrs.update(drift([json.loads(f.read_text()) for f in files]))


def template(job: Outlook) -> xr.Dataset:
    """The forecast without its values: dims, coordinates and attributes."""
    axis, past, codec = job.frames.axis, job.frames, job.model.fields
    dates = np.array([axis.ahead(s, np.arange(1, job.steps + 1)) for s in job.starts])
    init = xr.DataArray(axis.times[job.starts], dims="init_time")
    init.attrs = {"standard_name": "forecast_reference_time", "long_name": "start of the forecast"}
    valid = xr.DataArray(dates, dims=("init_time", "lead_time"))
    valid.attrs = {"standard_name": "time", "long_name": "time that is forecast"}
    if not axis.dated:
        own = {k: v for k, v in axis.coord.attrs.items() if k == "units"}
        init.attrs |= own
        valid.attrs |= own
    if not job.several:
        init, valid = init[0], valid[0]
    sizes = job.cases | {"member": job.members, "lead_time": job.steps}
    member = ("member", np.arange(job.members), {"standard_name": "realization"})
    ds = xr.Dataset(coords={**past.coords, "member": member, "lead_time": axis.leads(job.steps)})
    ds = ds.assign_coords(init_time=init.variable, valid_time=valid.variable)
    if past.sample and past.sample in past.ds.coords:
        ds = ds.assign_coords({job.films: (job.films, past.ds[past.sample].values)})
    for name, attrs in codec.variables.items():
        space = [past.places[d][0] for d in codec.grid.dims]
        ds[name] = ((*sizes, *space), blank((*sizes.values(), *codec.grid.shape)), dict(attrs))
    return ds.assign_attrs(_attrs(job))


def _attrs(job: Outlook) -> dict[str, str | int | float]:
    forecaster, lead = job.forecaster, job.lead
    return {
        "Conventions": "CF-1.10",
        "engine": type(forecaster).__name__,
        "network_evaluations": job.guided(0, 0).evaluations,
        "lead_step": _step(lead),
        "past_frames": forecaster.history,
        "guidance": "none" if job.seen is None else "moment matching, closed form",
        "seed": int(job.seed),
        "noise_scheme": SCHEME,
    }


def _step(lead: Lead) -> str:
    unit = lead.unit.removesuffix("s") if lead.step == 1 else lead.unit
    return f"{lead.step:g}" if unit == "1" else f"{lead.step:g} {unit}"


def _digest(job: Outlook) -> str:
    """The model and all that it is told, hashed: a run is not resumed with others."""
    encoder = Encoder()
    model = job.model
    tree = [encoder.encode(p) for p in (model.task, model.fields, model.sampler, model.forcings)]
    said_of = [int(job.members), int(job.steps), job.several, _attrs(job)]
    words = hashlib.sha256(json.dumps([tree, said_of]).encode())
    for name, tensor in sorted(encoder.tensors.items()):
        words.update(name.encode() + tensor.numpy().tobytes())
    words.update(manifest.plain_bytes(job.frames.axis.times[job.starts]))
    words.update("|".join(job.frames.labels).encode() + job.pasts.numpy().tobytes())
    for part in () if job.seen is None else job.seen.identity():
        words.update(part)
    if job.known is not None:
        words.update(job.known[0].numpy().tobytes() + job.known[1].tobytes())
    return words.hexdigest()[:16]


def _total(job: Outlook) -> int:
    parts, sizes = chunks(job), job.cases | {"member": job.members, "lead_time": job.steps}
    return math.prod(-(-n // parts[dim]) for dim, n in sizes.items())


def _cut(n: int, size: int) -> list[slice]:
    return [slice(lo, min(lo + size, n)) for lo in range(0, n, size)]


def _product(cuts: Mapping[str, list[slice]]) -> Iterator[Region]:
    regions: list[Region] = [{}]
    for dim, parts in cuts.items():
        regions = [region | {dim: part} for region in regions for part in parts]
    yield from regions
