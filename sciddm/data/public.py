"""Public files: fetched from where they are published, or a local copy, and the right bytes.

A recipe of the shelf that stands for one published file accepts that file and no other: its hash
is known, so a copy that was cut off, altered or exchanged is refused before it is read.
"""

from __future__ import annotations

import hashlib
import io
import urllib.request
from pathlib import Path

import xarray as xr

from sciddm.errors import InputError

SECONDS = 60


def read(url: str, sha256: str, source: str | Path = "") -> bytes:
    """The bytes of a published file, from ``url`` or from a local copy.

    Args:
        url: Where it is published; its last part is the file's name.
        sha256: Of its bytes.
        source: A local copy, or the folder that holds one under the published name.

    Raises:
        InputError: No way to the internet, no such copy, or other bytes.
    """
    name = url.rsplit("/", 1)[-1]
    if source:
        path = Path(source) / name if Path(source).is_dir() else Path(source)
        if not path.is_file():
            raise InputError(
                f"Nothing at {str(path)!r}; expected a copy of {name}, or the folder that holds "
                f"it; it is published at {url}."
            )
        raw, came = path.read_bytes(), str(path)
    else:
        raw, came = fetched(url), url
    found = hashlib.sha256(raw).hexdigest()
    if found != sha256:
        raise InputError(
            f"{came} is not {name} as it was published: sha256 {found[:12]}.., expected "
            f"{sha256[:12]}..: copy it again, or use the data set 'netcdf' for other files."
        )
    return raw


def dataset(raw: bytes, *, decode_times: bool = True) -> xr.Dataset:
    """The bytes of a NetCDF file (3 or 4) as a Dataset in memory."""
    engine = "scipy" if raw[:3] == b"CDF" else "h5netcdf"
    with xr.open_dataset(io.BytesIO(raw), engine=engine, decode_times=decode_times) as ds:
        return ds.load()


def fetched(url: str) -> bytes:
    """The bytes at ``url``, unchecked.

    Raises:
        InputError: No way to the internet.
    """
    try:
        with urllib.request.urlopen(url, timeout=SECONDS) as answer:
            return bytes(answer.read())
    except OSError as error:
        raise InputError(
            f"{url} cannot be fetched ({error}); expected a way to the internet: pass source= with "
            "a local copy."
        ) from error
