"""Hashes of what decides a preparation: files, clips, and the code that makes data."""

import ast
import hashlib
import inspect
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from affectjax.data import synth
from affectjax.data.clip import Clip
from affectjax.data.raw.dataset import RawDataset


def code_hash(dataset: RawDataset) -> str:
    """Returns a hash of the code that makes data: that of the data set and of `data.synth`.

    Comments, docstrings and layout do not count.

    Args:
      dataset: one that is made by code.
    """
    own = inspect.getsourcefile(dataset.generate)
    files = [*sorted(Path(synth.__file__).parent.glob("*.py")), Path(own)]
    trees = [ast.parse(file.read_text(encoding="utf-8")) for file in files]
    for node in (node for tree in trees for node in ast.walk(tree)):
        holds_docstring = isinstance(
            node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        )
        if holds_docstring and ast.get_docstring(node, clean=False) is not None:
            del node.body[0]
    return hash_of(ast.dump(tree) for tree in trees)


def hash_of(parts: Iterable[str]) -> str:
    """Returns the sha256 of some texts, in their order."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def checksum(path: Path) -> str:
    """Returns the sha256 of a file.

    Args:
      path: the file.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def clip_stamp(clip: Clip) -> str:
    """Returns all that decides what becomes of a clip, its media by size and time of change.

    Reading thousands of videos to hash them would take as long as preparing them.
    """
    media = []
    for path in (clip.video, clip.audio):
        files = sorted(path.iterdir()) if path is not None and path.is_dir() else [path]
        for file in files:
            if file is not None:
                stat = file.stat()
                media.append((file.name, stat.st_size, stat.st_mtime_ns))
    arrays = [
        hashlib.sha256(np.ascontiguousarray(x)).hexdigest()
        for x in (clip.frames, clip.waveform)
        if x is not None
    ]
    said = (clip.id, str(clip.label), clip.split, sorted(clip.folds.items()), clip.text)
    return json.dumps([said, media, arrays])
