r"""Prepares a data set: raw features or clips to ArrayRecord, or only a look at them.

    python -m affectjax.prepare --dataset=mosi --raw_dir=RAW --data_dir=DATA
    python -m affectjax.prepare --dataset=mafw --raw_dir=RAW --data_dir=DATA --image_size=112
    python -m affectjax.prepare --dataset=clips --raw_dir=MINE/clips.csv --doctor
    python -m affectjax.prepare --dataset=mafw --raw_dir=RAW --data_dir=DATA --features=clip \
        --weights=CLIP

With --features it stores what frozen towers give in place of frames, transcripts and sound: "clip"
for the first two, "bert" for transcripts alone, "wav2vec2" for sound, by wav2vec 2.0, HuBERT or
WavLM. The raw folder may then be one of prepared clips, too.

Exit codes: 0 done; 1 the doctor found something that would spoil a training; 2 bad input.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from affectjax.data.prepare import doctor, prepared
from affectjax.data.prepare.clip_storage import ENCODINGS, Storage
from affectjax.data.raw import sets
from affectjax.data.raw.dataset import CLIPS, VIEWS
from affectjax.errors import InputError
from affectjax.runtime import app

_DATASET = flags.DEFINE_string("dataset", None, f"One of {', '.join(sets.names())}.", required=True)
_RAW = flags.DEFINE_string("raw_dir", None, "The raw file, or the folder to look for it in.")
_DATA = flags.DEFINE_string("data_dir", None, "Where prepared data sets live.")
_VIEW = flags.DEFINE_enum("view", None, VIEWS, "By default what the data set has, or has first.")
_ALIGNED = flags.DEFINE_bool("aligned", False, "Whether the modalities share their steps.")
_FORMAT = flags.DEFINE_string("format", "auto", "The reader: auto, csd, mmsa, mult or plain.")
_STRICT = flags.DEFINE_bool("strict", False, "Whether a record that cannot be used is an error.")
_DOCTOR = flags.DEFINE_bool("doctor", False, "Only look, and report on stdout.")
_SEED = flags.DEFINE_integer("seed", 0, "Of a data set that is made by code.")
_LENGTHS = flags.DEFINE_list(
    "max_length", [], "Greatest number of steps, such as text=50,audio=500."
)
_STORED = Storage()
_SIZE = flags.DEFINE_integer("image_size", _STORED.image_size, "Of stored frames, pixels.")
_KEEP = flags.DEFINE_integer("keep_frames", _STORED.keep_frames, "The most frames of a clip.")
_DETECTOR = flags.DEFINE_string(
    "detector", _STORED.detector, "Of faces: cascade, none, or the path of an ONNX model."
)
_ENCODING = flags.DEFINE_enum(
    "image_encoding", _STORED.image_encoding, ENCODINGS, "Of stored frames; png is exact."
)
_OUTSIDE = flags.DEFINE_bool(
    "allow_outside", False, "Whether files that other files name may lie outside their folder."
)
_LARGEST = flags.DEFINE_float(
    "largest_mib",
    _STORED.largest_mib,
    "The most MiB of memory that a raw file may take; 0: 512 for a picture, 16384 for features.",
)
_FEATURES = flags.DEFINE_enum(
    "features", None, ("clip", "bert", "wav2vec2"), "Of which frozen towers to store features."
)
_WEIGHTS = flags.DEFINE_string("weights", None, "With --features: the folder of the towers.")
_FRAMES = flags.DEFINE_integer("frames", None, "With --features: the most of a clip; 16.")
_TOKENS = flags.DEFINE_integer("tokens", None, "With --features: the most of a transcript; 77.")
_SECONDS = flags.DEFINE_float("seconds", None, "With --features: the most of a sound; 5.")
_DTYPE = flags.DEFINE_enum(
    "dtype", None, ("float32", "bfloat16"), "With --features: in which the towers compute; float32."
)
_TOWERS = (_FEATURES, _WEIGHTS, _FRAMES, _TOKENS, _SECONDS, _DTYPE)


def main(argv: Sequence[str]) -> int:
    """Prepares or examines the data set that the flags name, and returns the exit code.

    Args:
      argv: the program's name.
    """
    del argv
    _check_towers()
    how = {
        "aligned": _ALIGNED.value,
        "seed": _SEED.value,
        "max_length": _lengths(_LENGTHS.value),
        "format": _FORMAT.value,
        "view": CLIPS if _FEATURES.value else _VIEW.value,
        "storage": Storage(
            image_size=_SIZE.value,
            keep_frames=_KEEP.value,
            detector=_DETECTOR.value,
            image_encoding=_ENCODING.value,
            allow_outside=_OUTSIDE.value,
            largest_mib=_LARGEST.value,
        ),
    }
    if _DOCTOR.value:
        found = prepared.diagnose(_DATASET.value, _RAW.value, **how)
        print(doctor.format(found))
        return 1 if found.problems else 0
    if _DATA.value is None:
        raise InputError("--data_dir is needed, the folder where prepared data sets live")
    strict = _STRICT.value
    folder = prepared.prepare(_DATASET.value, _RAW.value, _DATA.value, strict=strict, **how)
    print(_encode(folder) if _FEATURES.value else folder)
    return 0


def _encode(folder: Path) -> Path:
    """Returns the folder of features of the clips that were prepared."""
    from affectjax.weights.stored_features import (  # JAX starts slowly, and few need it here
        Encoding,
        encode,
    )

    given = {flag.name: flag.value for flag in _TOWERS if flag.value is not None}
    return encode(folder, _DATA.value, Encoding(**given))


def _check_towers() -> None:
    """Raises InputError for flags of towers that go together and do not."""
    if _FEATURES.value is None:
        stray = [flag.name for flag in _TOWERS if flag.value is not None]
        if stray:
            raise InputError(f"--{stray[0]} is of --features, which is not there")
    elif not _WEIGHTS.value:
        raise InputError("--weights is needed with --features, a local folder with the towers")
    elif _DOCTOR.value or _VIEW.value not in (None, CLIPS):
        raise InputError(
            "--features is of clips, and goes neither with another --view nor --doctor"
        )


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
