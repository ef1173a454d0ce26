"""What a run must remember of its data to predict again: `inputs.json` and its companions.

inputs.json            modalities, their kinds and shapes, and the labels
standardization.npz    mean and deviation of each feature over the training split
tokenizer/             in Hugging Face's layout, where there is text in tokens
"""

import json
import zipfile
from pathlib import Path

from affectjax.data import pipeline
from affectjax.data.inputs import Inputs
from affectjax.data.tokens import Tokenizer
from affectjax.errors import InputError

INPUTS, STATISTICS, TOKENIZER = "inputs.json", "standardization.npz", "tokenizer"


def save(inputs: Inputs, workdir: Path) -> None:
    """Writes what `load` reads into the workdir of a run."""
    pipeline.save_statistics(inputs.statistics, workdir / STATISTICS)
    if inputs.tokenizer is not None:
        inputs.tokenizer.save(workdir / TOKENIZER)
    (workdir / INPUTS).write_text(json.dumps(inputs.to_json(), indent=2) + "\n", encoding="utf-8")


def load(workdir: Path) -> Inputs:
    """Returns the inputs of a run.

    Raises:
      InputError: the workdir has none, or they are damaged.
    """
    folder = workdir / TOKENIZER
    try:
        content = json.loads((workdir / INPUTS).read_text(encoding="utf-8"))
        statistics = pipeline.load_statistics(workdir / STATISTICS)
        tokenizer = Tokenizer.load(folder) if folder.is_dir() else None
        return Inputs.from_json(content, tokenizer=tokenizer, statistics=statistics)
    except (OSError, ValueError, zipfile.BadZipFile, InputError) as error:
        raise InputError(
            f"{workdir}: {INPUTS}, {STATISTICS} or {TOKENIZER}/ is missing or damaged ({error})"
        ) from error
