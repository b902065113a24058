"""Files that are complete or absent, and the folder that results are kept in."""

from __future__ import annotations

import glob
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, wraps
from pathlib import Path
from typing import TypeVar

from filelock import Timeout

from forgetlib.errors import ForgetlibError

PACKAGE = Path(__file__).parent
SETTLED = 2 * 10**9  # nanoseconds; what changed since may change again under the same time stamp
T = TypeVar("T")


class StoreError(ForgetlibError, RuntimeError):
    """A record cannot be read or written."""


def read_once(read: Callable[[Path], T]) -> Callable[[Path], T]:
    """Make what reads a file remember what it read, for as long as the file stays as it is.

    A figure asks for the same questions and answers many times. Nobody may change what is read.
    """

    @lru_cache(maxsize=128)
    def known(path: Path, stamp: tuple[int, ...]) -> T:
        return read(path)

    @wraps(read)
    def reading(path: Path) -> T:
        try:
            found = path.stat()
        except OSError:
            return read(path)  # which says what is wrong
        if time.time_ns() - found.st_ctime_ns < SETTLED:
            return read(path)
        return known(path, (found.st_size, found.st_mtime_ns, found.st_ctime_ns))

    return reading


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the disk refuses inside the block into an error that says what to do."""
    try:
        yield
    except Timeout:  # of a lock, which another process has
        raise
    except OSError as error:
        raise StoreError(
            f"writing {path}",
            expected="a folder that can be written, with space left",
            found=str(error),
            do="Free space or change the permissions, and start again: finished runs are kept.",
        ) from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`, which takes its place if the block succeeds."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")
        os.close(handle)
        partial = Path(name)
        try:
            yield partial
            with partial.open("rb") as file:
                os.fsync(file.fileno())  # renamed only when its content is on the disk
            partial.chmod(0o644)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def remove_left_overs(folder: Path, name: str) -> None:
    """Remove a folder's temporary files of killed processes, of files that begin with this name.

    The caller has the lock under which such files are written.
    """
    with writing(folder):
        for partial in folder.glob(f".{glob.escape(name)}*.partial"):
            partial.unlink(missing_ok=True)


def root() -> Path:
    """Return the project's folder, which has figures/ and .work/.

    FORGETLIB_ROOT, or the checkout that the package is in; installed, the current folder.
    """
    own = PACKAGE.parent if (PACKAGE.parent / "pyproject.toml").exists() else Path.cwd()
    return Path(os.environ.get("FORGETLIB_ROOT") or own).resolve()
