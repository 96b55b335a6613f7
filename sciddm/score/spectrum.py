"""Power by wavenumber: is the ensemble as rough as the truth, at every scale?

A mean is always too smooth and a bad sampler too rough or too smooth where pointwise scores see
nothing. The spectrum of a bounded domain is taken with the cosine transform (an FFT would see a
jump between opposite edges and put it into every wavenumber); of a periodic one with the FFT.
Both are scaled so that the power of all modes adds up to the mean square of the field (Parseval).

References:
    Denis, Cote and Laprise, Spectral decomposition of two-dimensional atmospheric fields on
    limited-area domains using the discrete cosine transform (DCT), 2002,
    doi:10.1175/1520-0493(2002)130<1812:SDOTDA>2.0.CO;2, section 2.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from scipy import fft

from sciddm.errors import InputError, nearest
from sciddm.score.weights import MEMBER, Labelled, averaged, each, finish, label, pair, units


def power_spectrum(field: Labelled, dims: Sequence[str], *, periodic: bool = False) -> Labelled:
    """Radially averaged power spectrum over one or more space dims.

    Modes are gathered in shells of one width, the smallest step of the wavenumbers. Beyond the
    smallest Nyquist wavenumber (coordinate ``nyquist``) shells hold corners only.

    Args:
        field: ``(*others, *dims)``, evenly spaced along ``dims``, no gaps.
        dims: Space dims to transform, such as ``("y", "x")``.
        periodic: Transform by FFT (the last point is one step before the first); otherwise by
            the orthonormal DCT-II, whose cells lie half a step inside the edges.

    Returns:
        Mean power of a mode ``(*others, wavenumber)``, with coordinates ``wavenumber`` (cycles
        per unit of the space coordinate) and ``modes``; ``(power * modes).sum("wavenumber")`` is
        the mean square of the field.

    Raises:
        InputError: A dim is absent, unevenly spaced or shorter than two, or there is a gap.
    """

    def score(f: xr.DataArray, _: xr.DataArray) -> xr.DataArray:
        axes = averaged(f, dims)
        _check(f, axes)
        steps = [_step(f, d) for d in axes]
        shell, wavenumber = _shells([f.sizes[d] for d in axes], steps, periodic)
        power = xr.apply_ufunc(
            _power,
            f,
            input_core_dims=[list(axes)],
            output_core_dims=[["wavenumber"]],
            kwargs={"shell": shell, "count": len(wavenumber), "periodic": periodic},
            dask="parallelized",
            output_dtypes=[np.float64],
            dask_gufunc_kwargs={
                "allow_rechunk": True,
                "output_sizes": {"wavenumber": len(wavenumber)},
            },
        )
        per = {f[d].attrs.get("units", "1") if d in f.coords else "cell" for d in axes}
        unit = per.pop() if len(per) == 1 else "1"
        named = {"long_name": "wavenumber", "units": "1" if unit == "1" else f"1/{unit}"}
        modes = np.bincount(shell.ravel(), minlength=len(wavenumber))
        power = power.assign_coords(
            wavenumber=("wavenumber", wavenumber, named), modes=("wavenumber", modes)
        )
        members = f.sizes.get(MEMBER)
        basis = "FFT" if periodic else "DCT-II"
        done = finish(power, f"mean power of a mode in each shell, {basis}", members, units(f, 2))
        return done.assign_coords(nyquist=min(0.5 / step for step in steps))

    return each(score, field, field)


def log_spectral_distance(
    ens: Labelled,
    truth: Labelled,
    dims: Sequence[str],
    *,
    periodic: bool = False,
    over: Sequence[str] | None = None,
) -> Labelled:
    """Root mean square difference of the spectra of members and truth, in decibels.

    ``sqrt(<(10 log10 P_ens(k) / P_truth(k))^2>_k)`` over shells from the first above 0 to the
    Nyquist wavenumber. Power is averaged over members, and over ``over``, before the logarithm.
    3 dB is a factor of two in power. Not zero for a perfect ensemble of one case: one truth's
    spectrum is itself a draw, so average over cases.

    Args:
        ens: ``(member, *others, *dims)``.
        truth: ``(*others, *dims)``.
        dims: Space dims.
        periodic: As in :func:`power_spectrum`.
        over: Other dims to average power over; all by default, ``()`` for none.

    Raises:
        InputError: As :func:`power_spectrum` and :func:`sciddm.score.weights.pair`.
    """

    def score(e: xr.DataArray, t: xr.DataArray) -> xr.DataArray:
        e, t = pair(e, t)
        axes = averaged(e, dims)
        ours = power_spectrum(e, axes, periodic=periodic)
        theirs = power_spectrum(t, axes, periodic=periodic)
        others = tuple(d for d in averaged(t, None) if d not in axes) if over is None else over
        ours, k = ours.mean(MEMBER), theirs["wavenumber"]
        kept = (k > 0) & (k <= theirs["nyquist"] * (1 + 1e-9))
        ours = ours.mean(averaged(ours, others)).isel(wavenumber=kept.values)
        theirs = theirs.mean(averaged(theirs, others)).isel(wavenumber=kept.values)
        with np.errstate(divide="ignore", invalid="ignore"):
            decibel = 10 * xr.apply_ufunc(np.log10, ours / theirs)
        distance = (decibel**2).mean("wavenumber", skipna=False) ** 0.5
        distance = distance.drop_vars("nyquist")
        return finish(distance, "log-spectral distance of mean power", e.sizes[MEMBER], "dB")

    return each(score, ens, truth)


def _check(field: xr.DataArray, axes: Sequence[str]) -> None:
    short = [d for d in axes if field.sizes[d] < 2]
    if not axes or short:
        raise InputError(
            f"{label(field)}: cannot take a spectrum along {short or 'no dims'}; expected dims of "
            f"two points or more.{nearest('', map(str, field.dims))}"
        )
    gaps = field.isnull()
    if bool(gaps.any()):
        raise InputError(
            f"{label(field)} has {int(gaps.sum())} NaN of {field.size}; a spectrum needs a region "
            f"without gaps; select one, or fill them"
        )


def _step(field: xr.DataArray, dim: str) -> float:
    """Spacing of an evenly spaced coordinate; 1 where there is none."""
    if dim not in field.coords:
        return 1.0
    values = field[dim].values
    if values.dtype.kind not in "fiu":
        raise InputError(
            f"coordinate {dim!r} has dtype {values.dtype}; expected numbers to take a spectrum of; "
            f"drop it with .drop_vars({dim!r}) to count in cells"
        )
    steps = np.abs(np.diff(values.astype(np.float64)))
    # float32 coordinates in degrees leave about 1e-4 of a step.
    if np.ptp(steps) > 1e-3 * steps.mean() or steps.mean() == 0:
        raise InputError(
            f"coordinate {dim!r} is not evenly spaced (steps {steps.min():g} to {steps.max():g}); "
            f"interpolate to an even grid, or drop it with .drop_vars({dim!r}) to count in cells"
        )
    return float(steps.mean())


def _shells(
    sizes: Sequence[int], steps: Sequence[float], periodic: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The shell of every mode ``(*sizes)``, and the wavenumber of every shell."""
    each_axis = [
        np.abs(fft.fftfreq(n, h)) if periodic else np.arange(n) / (2 * n * h)
        for n, h in zip(sizes, steps, strict=True)
    ]
    radius = np.sqrt(sum(np.meshgrid(*[k**2 for k in each_axis], indexing="ij")))
    width = min(
        1 / (n * h) if periodic else 1 / (2 * n * h) for n, h in zip(sizes, steps, strict=True)
    )
    number = np.rint(radius / width).astype(np.int64)
    found, shell = np.unique(number, return_inverse=True)
    return shell.reshape(number.shape), found * width


def _power(field: np.ndarray, shell: np.ndarray, count: int, periodic: bool) -> np.ndarray:
    """``(*others, *shape) -> (*others, count)``, the mean power of the modes in each shell."""
    axes = tuple(range(field.ndim - shell.ndim, field.ndim))
    values = field.astype(np.float64)
    if periodic:
        power = np.abs(fft.fftn(values, axes=axes)) ** 2 / shell.size**2
    else:
        power = fft.dctn(values, axes=axes, norm="ortho") ** 2 / shell.size
    others = power.shape[: axes[0]]
    rows = power.reshape(-1, shell.size)
    modes = np.bincount(shell.ravel(), minlength=count)
    sums = [np.bincount(shell.ravel(), weights=row, minlength=count) for row in rows]
    return (np.stack(sums) / modes).reshape(*others, count)
