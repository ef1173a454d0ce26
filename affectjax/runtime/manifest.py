"""Checksums of what a run or a preparation leaves, in one file of its folder, checked when read.

checksums.json    by name, as in "tokenizer/tokenizer.json", `[bytes, CRC-32]` as a file was written
                  and, while it is being replaced, as it will be

They tell damage, not malice. A file that has none, as an older program wrote it, is read with a
warning.
"""

import concurrent.futures
import functools
import json
import os
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from absl import logging

from affectjax.errors import InputError

FILE = "checksums.json"
_CHUNK = 2**22
# Bytes and CRC-32 of a file.
Checksum = list[int]


def write(folder: Path, files: Mapping[str, bytes]) -> None:
    """Writes files and their checksums; whenever it is killed, each is there whole, old or new.

    Args:
      folder: with the manifest in it; made where it is not there.
      files: the content of each by its name in the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        known = _read(folder)
    except InputError as error:
        logging.warning("%s; it is begun anew", error)
        known = {}
    new = {name: [[len(content), zlib.crc32(content)]] for name, content in files.items()}
    _replace(folder / FILE, known | {name: known.get(name, []) + own for name, own in new.items()})
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        replace(folder / name, content)
    _replace(folder / FILE, known | new)


def check(folder: Path, names: Iterable[str], remedy: str) -> None:
    """Checks files that are about to be read.

    Args:
      folder: with the manifest in it.
      names: of the files in it; one that ends in "/" stands for all that the manifest has there.
      remedy: what to do about a damaged one, for the message.

    Raises:
      InputError: one is missing or damaged, or the manifest is.
    """
    known = _read(folder)
    for name in names:
        own = [n for n in known if n == name or (name.endswith("/") and n.startswith(name))]
        wrong = _wrong(folder, {n: known[n] for n in own})
        if wrong:
            raise InputError(f"{wrong}; {remedy}")
        if not own and (folder / name).exists():
            _warn(folder / name)


def take(folder: Path) -> None:
    """Writes the manifest of a folder that is complete: the checksums of all files in it."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    found = _checksums(files)
    _replace(folder / FILE, {f.relative_to(folder).as_posix(): [found[f]] for f in files})


def damage(folder: Path) -> str:
    """Returns what is wrong with a folder whose manifest `take` wrote, "" where nothing is.

    All files are read, 1.4 GB a second and core on a machine of 2026; once a process, as long as
    their size and time of change stay the same.
    """
    try:
        known = _read(folder)
    except InputError as error:
        return str(error)
    if not known:
        _warn(folder)
    return _wrong(folder, known)


def _wrong(folder: Path, known: Mapping[str, list[Checksum]]) -> str:
    """Returns which of some files is missing or not as it was written, "" where none is."""
    missing = [name for name in known if not (folder / name).is_file()]
    if missing:
        return f"{folder / missing[0]} is missing"
    found = _checksums([folder / name for name in known])
    wrong = [name for name, sums in known.items() if found[folder / name] not in sums]
    return f"{folder / wrong[0]} is damaged: it is not as it was written" if wrong else ""


def replace(path: Path, content: bytes) -> None:
    """Writes a file at once or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_bytes(content)
    os.replace(part, path)


def _replace(path: Path, known: Mapping[str, list[Checksum]]) -> None:
    lines = (f"{json.dumps(name)}: {json.dumps(known[name])}" for name in sorted(known))
    replace(path, ("{\n" + ",\n".join(lines) + "\n}\n").encode())


def _read(folder: Path) -> dict[str, list[Checksum]]:
    """Returns the checksums by name, none where there is no manifest."""
    path = folder / FILE
    if not path.is_file():
        return {}
    try:
        known = json.loads(path.read_bytes())
        return {name: [[int(size), int(crc)] for size, crc in own] for name, own in known.items()}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{path} is damaged ({error}); remove it to read the files beside it unchecked"
        ) from error


def _checksums(files: list[Path]) -> dict[Path, Checksum]:
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(files, pool.map(_checksum, files), strict=True))


def _checksum(path: Path) -> Checksum:
    stat = path.stat()
    return [stat.st_size, _crc(path, stat.st_size, stat.st_mtime_ns, stat.st_ino)]


@functools.cache
def _crc(path: Path, *_stat: int) -> int:
    """Returns the CRC-32 of a file that has a size, a time of change and an inode."""
    crc = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            crc = zlib.crc32(chunk, crc)
    return crc


@functools.cache
def _warn(path: Path) -> None:
    """Says once that nothing is known of a file or folder."""
    logging.warning("no checksum of %s is known: it is read unchecked", path)
