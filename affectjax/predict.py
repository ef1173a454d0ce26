r"""Recognises emotions: `affectjax predict clip.mp4 --checkpoint=runs/umbenet`.

    python -m affectjax.predict --checkpoint=W --input=clip.mp4 --text="What a day!"
    python -m affectjax.predict --checkpoint=W --input=voice.wav
    python -m affectjax.predict --checkpoint=W --text="Only a sentence."
    python -m affectjax.predict --checkpoint=W --input=FOLDER --output=DIR
    python -m affectjax.predict --checkpoint=W --input=clips.csv --window=4 --hop=1

Prints one JSON object; predictions.json and a figure for each clip that is longer than the window
go to the output folder. Exit codes: 0 something was predicted; 2 bad input.
"""

import json
from collections.abc import Sequence

from absl import flags

from affectjax.errors import InputError
from affectjax.runtime import app

_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "The workdir of a finished run.")
_INPUT = flags.DEFINE_string(
    "input", None, "A video, sound or image, a folder of them, or a table: id, video, audio, text."
)
_TEXT = flags.DEFINE_string("text", None, "What is said in the input, or alone.")
_OUTPUT = flags.DEFINE_string("output", None, "Where to write; by default CHECKPOINT/predict.")
_WINDOW = flags.DEFINE_float(
    "window", None, "Seconds; by default config.data.seconds of the run.", lower_bound=0.0
)
_HOP = flags.DEFINE_float(
    "hop", None, "Seconds between two windows; by default half of one.", lower_bound=0.0
)
_OUTSIDE = flags.DEFINE_bool(
    "allow_outside", False, "Whether the files of a table may lie outside its folder."
)


def main(argv: Sequence[str]) -> int:
    """Calls `inference.recognize` and prints what it returns.

    Args:
      argv: the program's name, and perhaps the input.
    """
    given = [*argv[1:], *([_INPUT.value] if _INPUT.value is not None else [])]
    if len(given) > 1:
        raise InputError(
            f"{len(given)} inputs, {given[0]!r} and {given[1]!r}; allowed: one, which may be a "
            "folder or a table"
        )
    if not _CHECKPOINT.value:
        raise InputError("--checkpoint is missing: the workdir of which run should predict?")
    if not given and _TEXT.value is None:
        raise InputError("--input and --text are both missing: what should be recognised?")
    from affectjax import inference  # JAX starts slowly: a wrong flag answers before that

    result = inference.recognize(
        _CHECKPOINT.value,
        given[0] if given else None,
        text=_TEXT.value,
        output=_OUTPUT.value,
        window=_WINDOW.value,
        hop=_HOP.value,
        allow_outside=_OUTSIDE.value,
    )
    print(json.dumps(result, indent=2))
    return 0


if __name__ == "__main__":
    app.run(main, arguments=True)
