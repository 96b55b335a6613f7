"""Files that are whole or absent, and one line for a disk that is full."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sciddm.errors import RunError


def write_json(file: Path, value: object) -> None:
    """All of it or nothing, on disk before it has its name."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    with temporary.open("w") as out:
        json.dump(value, out, indent=1)
        out.flush()
        os.fsync(out.fileno())
    os.replace(temporary, file)


def swap(new: Path, path: Path) -> None:
    """Give ``new`` the final name; an older store there goes only after that."""
    old = path.with_name(path.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if path.exists():
        os.rename(path, old)
    try:
        os.rename(new, path)
    except OSError:
        if old.exists():
            os.rename(old, path)
        raise
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def one_line(path: Path) -> Iterator[None]:
    """A full or failing disk, said in one line."""
    try:
        yield
    except OSError as error:
        free = shutil.disk_usage(path.parent).free
        full = f" ({free} bytes free)" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        raise RunError(
            f"{path} cannot be written: {error.strerror or error}{full}; finished regions are "
            "kept: mend it and run again."
        ) from error
