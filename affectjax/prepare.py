r"""Prepares a data set: raw feature files to ArrayRecord, or only a look at them.

    python -m affectjax.prepare --dataset=mosi --raw_dir=RAW --data_dir=DATA
    python -m affectjax.prepare --dataset=mosi --raw_dir=RAW --doctor

Exit codes: 0 done; 1 the doctor found something that would spoil a training; 2 bad input.
"""

from collections.abc import Sequence

from absl import flags

from affectjax.data import doctor, prepared, sets
from affectjax.errors import InputError
from affectjax.runtime import app

_DATASET = flags.DEFINE_string("dataset", None, f"One of {', '.join(sets.names())}.", required=True)
_RAW = flags.DEFINE_string("raw_dir", None, "The raw file, or the folder to look for it in.")
_DATA = flags.DEFINE_string("data_dir", None, "Where prepared data sets live.")
_ALIGNED = flags.DEFINE_bool("aligned", False, "Whether the modalities share their steps.")
_FORMAT = flags.DEFINE_string("format", "auto", "The reader: auto, csd, mmsa, mult or plain.")
_STRICT = flags.DEFINE_bool("strict", False, "Whether a record that cannot be used is an error.")
_DOCTOR = flags.DEFINE_bool("doctor", False, "Only look, and report on stdout.")
_SEED = flags.DEFINE_integer("seed", 0, "Of a data set that is made by code.")
_LENGTHS = flags.DEFINE_list(
    "max_length", [], "Greatest number of steps, such as text=50,audio=500."
)


def main(argv: Sequence[str]) -> int:
    """Prepares or examines the data set that the flags name, and returns the exit code.

    Args:
      argv: the program's name.
    """
    del argv
    how = {
        "aligned": _ALIGNED.value,
        "seed": _SEED.value,
        "max_length": _lengths(_LENGTHS.value),
        "format": _FORMAT.value,
    }
    if _DOCTOR.value:
        found = prepared.diagnose(_DATASET.value, _RAW.value, **how)
        print(doctor.format(found))
        return 1 if found.problems else 0
    if _DATA.value is None:
        raise InputError("--data_dir is needed, the folder where prepared data sets live")
    strict = _STRICT.value
    print(prepared.prepare(_DATASET.value, _RAW.value, _DATA.value, strict=strict, **how))
    return 0


def _lengths(entries: Sequence[str]) -> dict[str, int]:
    """Returns `{"text": 50}` from `["text=50"]`."""
    lengths = {}
    for entry in entries:
        modality, _, number = entry.partition("=")
        if not number.isdigit():
            raise InputError(f"--max_length={entry}: expected modality=number")
        lengths[modality] = int(number)
    return lengths


if __name__ == "__main__":
    app.run(main)
