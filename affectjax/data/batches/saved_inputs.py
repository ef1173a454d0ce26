"""What a run must remember of its data to predict again: `inputs.json` and its companions.

inputs.json            modalities, their kinds and shapes, and the labels
standardization.npz    mean and deviation of each feature over the training split
tokenizer/             in Hugging Face's layout, where there is text in tokens
"""

import json
import tempfile
from pathlib import Path

from affectjax.data.batches import dataset
from affectjax.data.batches.inputs import Inputs
from affectjax.data.batches.tokenizer import Tokenizer
from affectjax.errors import InputError
from affectjax.runtime import manifest

INPUTS, STATISTICS, TOKENIZER = "inputs.json", "standardization.npz", "tokenizer"
_REMEDY = "put it back from a copy, or give the command of the training again, which writes it anew"


def where(workdir: Path, name: str) -> Path:
    """Returns where a run describes a data set: the workdir, or sources/<name> of unpaired ones."""
    return workdir / "sources" / name if name else workdir


def save(inputs: Inputs, workdir: Path, name: str = "") -> None:
    """Writes what `load` reads, with checksums.

    Args:
      inputs: of a data set.
      workdir: of the run.
      name: of the data set, see `where`.
    """
    with tempfile.TemporaryDirectory() as made:
        place = Path(made)
        folder = where(place, name)
        folder.mkdir(parents=True, exist_ok=True)
        dataset.save_statistics(inputs.statistics, folder / STATISTICS)
        if inputs.tokenizer is not None:
            inputs.tokenizer.save(folder / TOKENIZER)
        said = json.dumps(inputs.to_json(), indent=2) + "\n"
        (folder / INPUTS).write_text(said, encoding="utf-8")
        files = [file for file in place.rglob("*") if file.is_file()]
        manifest.write(workdir, {f.relative_to(place).as_posix(): f.read_bytes() for f in files})


def load(workdir: Path, name: str = "") -> Inputs:
    """Returns the inputs of a run.

    Args:
      workdir: of the run.
      name: of the data set, see `where`.

    Raises:
      InputError: the run has none, or they are damaged.
    """
    folder = where(workdir, name)
    words, prefix = folder / TOKENIZER, where(Path(), name)
    names = [(prefix / file).as_posix() for file in (INPUTS, STATISTICS, TOKENIZER)]
    manifest.check(workdir, (*names[:2], f"{names[2]}/"), _REMEDY)
    try:
        content = json.loads((folder / INPUTS).read_text(encoding="utf-8"))
        statistics = dataset.load_statistics(folder / STATISTICS)
        tokenizer = Tokenizer.load(words) if words.is_dir() else None
        return Inputs.from_json(content, tokenizer=tokenizer, statistics=statistics)
    except Exception as error:  # what is damaged can fail in any of the three, with any exception
        raise InputError(
            f"{folder}: {INPUTS}, {STATISTICS} or {TOKENIZER}/ is missing or damaged ({error})"
        ) from error
