"""Prepared clips read once by frozen towers: features in place of frames, of words and of sound.

    DATA/<name>/encoded-<towers>/1.0.0/    as `affectjax.data.prepare.prepared` reads it

Frames become what CLIP's image tower gives for each, a transcript what a text tower gives for the
whole, sound the mean over time of what each layer of a speech tower gives; what no tower reads
stays, and transcripts are kept beside. A training then runs no tower on a clip again. What made the
features stands in affectjax.json, so that a run with other weights is refused.

The means of all layers are stored, in the place of steps, because of these a model can still learn
how much each layer counts: the mean over time of a sum of layers is the sum of their means.

Letters: B clips, T frames, H height, W width, L tokens or layers, S samples, D features.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tqdm

from affectjax import weights
from affectjax.data.batches import streams
from affectjax.data.batches.inputs import Frames, Inputs, Text, Waveform
from affectjax.data.batches.tokenizer import Tokenizer
from affectjax.data.media import codec
from affectjax.data.prepare import prepared, write
from affectjax.data.prepare.examples import Example, Examples
from affectjax.data.prepare.plan import Plan
from affectjax.data.prepare.prepared import Prepared
from affectjax.data.prepare.records import Source
from affectjax.data.prepare.request import VERSION
from affectjax.data.raw.dataset import CLIPS
from affectjax.data.skipped import SkippedRecords
from affectjax.errors import InputError
from affectjax.modalities import SAMPLE_RATE
from affectjax.models.bert import Bert
from affectjax.models.clip import ImageTower, TextTower
from affectjax.models.encoders import encode_frames
from affectjax.models.wav2vec2 import SpeechTower

DTYPES = ("float32", "bfloat16")
# By kind of features, the modalities that they are made of.
FEATURES = {"clip": ("text", "vision"), "bert": ("text",), "wav2vec2": ("audio",)}
_READERS = {"clip": weights.clip, "bert": weights.bert, "wav2vec2": weights.wav2vec2}
# Images, texts where there are no images, and seconds of sound that a tower takes at once.
_IMAGES, _TEXTS, _SECONDS = 64, 32, 40
_THREADS = 2

Batch = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Encoding:
    """What to do with prepared clips.

    Attributes:
      features: "clip" for frames and transcripts by CLIP's towers, "bert" for transcripts alone, by
        the mean of BERT's tokens, "wav2vec2" for sound alone, by the layers of wav2vec 2.0, HuBERT
        or WavLM.
      weights: a folder, or a name on the hub, in Hugging Face's layout.
      frames: the most of a clip, the middle ones of as many equal stretches.
      tokens: the most of a transcript, start and end among them, and no more than the tower reads.
      seconds: of sound the most of a clip, from its start.
      dtype: in which the towers compute; what they give is stored in float32.
    """

    features: str
    weights: str
    frames: int = 16
    tokens: int = 77
    seconds: float = 5.0
    dtype: str = "float32"

    def __post_init__(self):
        for key, allowed in (("features", tuple(FEATURES)), ("dtype", DTYPES)):
            if getattr(self, key) not in allowed:
                value = getattr(self, key)
                raise InputError(f"{key} is {value!r}; allowed: {', '.join(allowed)}")
        for key, least in (("frames", 1), ("tokens", 2)):
            if getattr(self, key) < least:
                raise InputError(f"{key} is {getattr(self, key)}; allowed: {least} or more")
        if not self.seconds > 0:
            raise InputError(f"seconds is {self.seconds}; allowed: more than 0")
        if not self.weights:
            raise InputError(f"features {self.features!r} need weights, a local folder")


def encode(source: str | Path, data_dir: str | Path, encoding: Encoding) -> Path:
    """Returns the folder of clips with features in place of what towers read; writes it.

    When the same features of the same clips are there already, they are returned as they are.

    Args:
      source: prepared clips. Those that CLIP has read may still go to BERT for their transcripts.
      data_dir: where prepared data sets live.
      encoding: what to do.

    Raises:
      InputError: these are no clips, or have nothing to encode; the weights do not fit; or features
        of other clips or by other weights stand there.
    """
    opened = prepared.open_prepared(source)
    towers = _towers(opened, encoding)
    examples = EncodedExamples(opened, towers)
    options = {
        "name": opened.name,
        "view": CLIPS,
        "version": VERSION,
        "checksum": opened.card["key"],
        "encoded": towers.made,
    }
    made_by = {said["encoder"] for said in examples.inputs.values() if said.get("encoder")}
    folder = Path(opened.name, "-".join(("encoded", *sorted(made_by))), VERSION)
    plan = Plan(folder, opened.spec, options, lambda: examples, SkippedRecords())
    return write.carry_out(plan, Path(data_dir))


@dataclasses.dataclass(frozen=True)
class _Towers:
    """What encodes some modalities.

    Attributes:
      made: by modality, what the card says of its features.
      inputs: how records become batches for the towers.
      params: theirs.
      run: `(params, batch)` to `[B, T, D]` float32 by modality.
    """

    made: dict[str, dict[str, Any]]
    inputs: Inputs
    params: Any
    run: Callable[[Any, Batch], dict[str, jax.Array]]


def _towers(opened: Prepared, encoding: Encoding) -> _Towers:
    """Returns the towers for what the clips have; raises an InputError where they do not fit."""
    wanted = _wanted(opened, encoding)
    found = _READERS[encoding.features](encoding.weights)
    dtype = jnp.dtype(encoding.dtype)
    kinds, runs, width, length, tokenizer = {}, {}, {}, {}, None
    if "vision" in wanted:
        args = _tower_of(found, "image", encoding)
        have = opened.inputs["vision"]
        if have["size"] != args["image_size"]:
            raise InputError(
                f"{opened.path}: frames of {have['size']} pixels, but the image tower in "
                f"{encoding.weights} reads {args['image_size']}; prepare them of that size"
            )
        kinds["vision"] = Frames(min(encoding.frames, have["longest"]), have["size"])
        runs["vision"] = _vision(ImageTower(**args, dtype=dtype), found.mean, found.std)
        width["vision"], length["vision"] = args["projection"], kinds["vision"].count
    if "text" in wanted:
        clip = encoding.features == "clip"
        args = _tower_of(found, "text", encoding) if clip else found.args
        tokenizer = _tokenizer(encoding, args["vocab"])
        kinds["text"] = Text(min(encoding.tokens, args["length"]))
        runs["text"] = _text((TextTower if clip else Bert)(**args, dtype=dtype), clip)
        width["text"], length["text"] = args["projection" if clip else "width"], 1
    if "audio" in wanted:
        samples = codec.samples(encoding.seconds)
        kinds["audio"] = Waveform(min(samples, opened.inputs["audio"]["longest"]))
        runs["audio"] = _audio(SpeechTower(**found.args, dtype=dtype))
        width["audio"], length["audio"] = found.args["width"], found.args["layers"] + 1

    @jax.jit
    def run(params: Any, batch: Batch) -> dict[str, jax.Array]:
        return {m: one(params, batch[m]).astype(jnp.float32) for m, one in runs.items()}

    said = {
        "kind": "features",
        "encoder": encoding.features,
        "weights": Path(encoding.weights).resolve().name,
        "checksum": weights.checksum(found),
        "dtype": encoding.dtype,
    }
    own = {
        "text": {"tokens": encoding.tokens},
        "audio": {"seconds": encoding.seconds},
        "vision": {"frames": encoding.frames},
    }
    made = {m: {**said, "length": length[m], "width": width[m], **own[m]} for m in wanted}
    inputs = Inputs(kinds, opened.spec, tokenizer=tokenizer)
    return _Towers(made, inputs, jax.device_put(found.params), run)


def _wanted(opened: Prepared, encoding: Encoding) -> tuple[str, ...]:
    """Returns the modalities to encode: those that the clips have, and no tower has read yet."""
    if opened.view != CLIPS:
        raise InputError(f"{opened.path}: holds {opened.view}; only clips can be encoded")
    wanted = tuple(m for m in FEATURES[encoding.features] if m in opened.inputs)
    if not wanted:
        raise InputError(
            f"{opened.path}: has none of {', '.join(FEATURES[encoding.features])}, of which "
            f"features {encoding.features!r} are made"
        )
    for m, kind, shown in (("vision", "frames", "frames are"), ("audio", "waveform", "sound is")):
        if m in wanted and opened.inputs[m]["kind"] != kind:
            raise InputError(
                f"{opened.path}: its {shown} encoded already; name the clips themselves"
            )
    return wanted


def _tower_of(found: weights.ClipWeights, name: str, encoding: Encoding) -> dict[str, Any]:
    """Returns the arguments of one tower of CLIP."""
    args = getattr(found, name)
    if args is None:
        raise InputError(f"{encoding.weights} has no {name} tower; a CLIPModel has both")
    return args


def _tokenizer(encoding: Encoding, vocab: int) -> Tokenizer:
    """Returns the tokenizer of the weights, whose tower knows `vocab` tokens."""
    tokenizer = Tokenizer.load(encoding.weights)
    if tokenizer.vocab > vocab:
        raise InputError(
            f"the tokenizer in {encoding.weights} has {tokenizer.vocab} tokens, but the text tower "
            f"there knows {vocab}"
        )
    return tokenizer


def _vision(
    tower: ImageTower, mean: tuple[float, ...], std: tuple[float, ...]
) -> Callable[[Any, Batch], jax.Array]:
    """Returns the features `[B, T, D]` of frames, as a function of parameters and `x`."""

    def run(params: Any, vision: Batch) -> jax.Array:
        one = functools.partial(tower.apply, {"params": params["image_tower"]})
        return encode_frames(lambda images: one(images)[0], vision["x"], mean, std)

    return run


def _text(tower: TextTower | Bert, clip: bool) -> Callable[[Any, Batch], jax.Array]:
    """Returns the features `[B, 1, D]` of texts, as a function of parameters and tokens."""

    def run(params: Any, text: Batch) -> jax.Array:
        own = params["text_tower"] if clip else params
        return tower.apply({"params": own}, text["x"], text["mask"])[0][:, None]

    return run


def _audio(tower: SpeechTower) -> Callable[[Any, Batch], jax.Array]:
    """Returns the features `[B, L + 1, D]` of sounds, as a function of parameters and `x`."""

    def run(params: Any, audio: Batch) -> jax.Array:
        return tower.apply({"params": params}, audio["x"], audio["mask"])[1]["means"]

    return run


class _Chunks:
    """B clips at a time, by number: their records, and the batch that the towers read."""

    def __init__(self, source: Source, inputs: Inputs, size: int):
        self._source, self._inputs, self._size = source, inputs, size

    def __len__(self) -> int:
        return -(-len(self._source) // self._size)

    def __getitem__(self, index: int) -> tuple[list[dict[str, Any]], Batch]:
        start = index * self._size
        rows = range(start, min(start + self._size, len(self._source)))
        records = [self._source[row] for row in rows]
        # The last batch is padded: one shape is compiled, once.
        return records, self._inputs.collate(records + [None] * (self._size - len(rows)))


class EncodedExamples(Examples):
    """The examples of prepared clips with what towers make of them in place of what was there.

    Attributes:
      inputs: by modality, what the card says of it.
    """

    def __init__(self, opened: Prepared, towers: _Towers):
        """Reads no record yet.

        Args:
          opened: the clips; all of them can be used.
          towers: what encodes some of their modalities.
        """
        self._opened, self._towers = opened, towers
        self.splits = tuple(opened.splits)
        self.inputs = {m: towers.made.get(m, said) for m, said in opened.inputs.items()}
        self.kinds = {m: said["kind"] for m, said in self.inputs.items()}
        self.widths = {m: said["width"] for m, said in self.inputs.items() if "width" in said}
        self.dtypes = dict.fromkeys(self.widths, np.float32)
        self._kept = [m for m in self.kinds if self.kinds[m] != "text" and m not in towers.made]

    def read(self, split: str) -> Iterator[Example]:
        """Yields the examples of a split, some of them at a time through the towers."""
        towers, source, folds = self._towers, self._opened.source(split), self._folds()
        chunks = streams.BatchStream(_Chunks(source, towers.inputs, self._size()), _THREADS)
        name = f"{self._opened.name} {split}"
        # Only where somebody watches.
        with tqdm.tqdm(desc=name, total=len(source), unit="clip", disable=None) as bar:
            for records, batch in chunks:
                made = towers.run(towers.params, {m: batch[m] for m in towers.made})
                made = jax.device_get(made)
                for row, record in enumerate(records):
                    # A text of any length is one step, a sound one a layer; none is none.
                    steps = {m: int(batch[m]["mask"][row].sum()) for m in made}
                    media = {m: record[m] for m in self._kept}
                    media |= {m: x[row, : steps[m]] for m, x in made.items()}
                    own = folds.get(record["id"], {})
                    yield Example(record["id"], record["label"], record["transcript"], media, own)
                bar.update(len(records))

    def _size(self) -> int:
        """Returns how many clips the towers take at once."""
        kinds = self._towers.inputs.kinds
        if "vision" in kinds:
            return max(1, _IMAGES // kinds["vision"].count)
        if "audio" in kinds:
            return max(1, _SECONDS * SAMPLE_RATE // kinds["audio"].samples)
        return _TEXTS

    def card(self) -> dict[str, Any]:
        """Returns what the clips' card says, and how the features were made."""
        return self._opened.card | {"inputs": self.inputs}

    def _folds(self) -> dict[str, dict[str, str]]:
        """Returns by id, then by fold, the split that an example belongs to."""
        found: dict[str, dict[str, str]] = {}
        for fold, parts in self._opened.folds.items():
            for part, ids in parts.items():
                for name in ids:
                    found.setdefault(name, {})[fold] = part
        return found
