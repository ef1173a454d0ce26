"""What a run must remember of its data to predict again: `inputs.json` and its companions.

inputs.json            modalities, their kinds and shapes, and the labels
standardization.npz    mean and deviation of each feature over the training split
tokenizer/             in Hugging Face's layout, where there is text in tokens
"""

import json
from pathlib import Path

from affectjax.data.batches import dataset
from affectjax.data.batches.inputs import Inputs
from affectjax.data.batches.tokenizer import Tokenizer
from affectjax.errors import InputError

INPUTS, STATISTICS, TOKENIZER = "inputs.json", "standardization.npz", "tokenizer"


def where(workdir: Path, name: str) -> Path:
    """Returns where a run describes a data set: the workdir, or sources/<name> of unpaired ones."""
    return workdir / "sources" / name if name else workdir


def save(inputs: Inputs, folder: Path) -> None:
    """Writes what `load` reads into a folder: see `where`."""
    folder.mkdir(parents=True, exist_ok=True)
    dataset.save_statistics(inputs.statistics, folder / STATISTICS)
    if inputs.tokenizer is not None:
        inputs.tokenizer.save(folder / TOKENIZER)
    (folder / INPUTS).write_text(json.dumps(inputs.to_json(), indent=2) + "\n", encoding="utf-8")


def load(folder: Path) -> Inputs:
    """Returns the inputs of a run.

    Raises:
      InputError: the folder has none, or they are damaged.
    """
    words = folder / TOKENIZER
    try:
        content = json.loads((folder / INPUTS).read_text(encoding="utf-8"))
        statistics = dataset.load_statistics(folder / STATISTICS)
        tokenizer = Tokenizer.load(words) if words.is_dir() else None
        return Inputs.from_json(content, tokenizer=tokenizer, statistics=statistics)
    except Exception as error:  # what is damaged can fail in any of the three, with any exception
        raise InputError(
            f"{folder}: {INPUTS}, {STATISTICS} or {TOKENIZER}/ is missing or damaged ({error})"
        ) from error
