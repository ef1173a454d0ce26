"""Seconds an epoch of UMBEnet on frames against features of the frozen tower, the same config.

    python -m tests.benchmarks.encoded_training --epochs=3

Clips of 8 frames of 64 x 64 and a sentence each, a CLIP with random weights: a vision transformer
of width 192 with 6 layers and patches of 8, a text tower of width 128 with 2, both frozen. The same
stage `missing` is trained in turn on the clips and on what they are encoded to; the first epoch of
each, which compiles, does not count. Prints medians, their ratio, and the seconds of the encoding.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags

from affectjax.data.batches.tokenizer import Tokenizer
from affectjax.data.media.codec import encode as image_file
from affectjax.data.prepare import prepared
from affectjax.data.prepare.clip_storage import Storage
from affectjax.data.raw import sets
from affectjax.training import loop
from affectjax.training.loop import Trainer
from affectjax.weights.stored_features import Encoding, encode
from configs import umbenet

_EPOCHS = flags.DEFINE_integer("epochs", 3, "Epochs that are timed, after one that is not.")
_CLIPS = flags.DEFINE_integer("clips", 64, "Clips to train on.")

FRAMES, SIZE = 8, 64
CLASSES = sets.get("dfew").labels.classes


def write_clips(folder: Path, count: int) -> Path:
    """Returns a table of clips: `count` to train on, 8 each to validate and to test."""
    rng = np.random.default_rng(0)
    rows = ["id,split,label,video,text"]
    for i, split in enumerate(["train"] * count + ["valid"] * 8 + ["test"] * 8):
        (folder / str(i)).mkdir(parents=True)
        for t in range(FRAMES):
            image = rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
            (folder / str(i) / f"{t}.png").write_bytes(image_file(image, "png"))
        rows.append(f"c_{i},{split},{CLASSES[i % len(CLASSES)]},{i},somebody says sentence {i}")
    (folder / "clips.csv").write_text("\n".join(rows) + "\n")
    return folder


def write_weights(folder: Path) -> Path:
    """Returns a folder with a CLIP of random weights, and its tokenizer."""
    import transformers

    tokenizer = Tokenizer.train([*CLASSES, "somebody says sentence"])
    text = {
        "vocab_size": tokenizer.vocab, "hidden_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "intermediate_size": 512, "max_position_embeddings": 77,
        "bos_token_id": tokenizer.sos, "eos_token_id": tokenizer.eos,
        "pad_token_id": tokenizer.pad,
    }  # fmt: skip
    vision = {
        "image_size": SIZE, "patch_size": 8, "hidden_size": 192, "num_hidden_layers": 6,
        "num_attention_heads": 4, "intermediate_size": 768,
    }  # fmt: skip
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=128)
    transformers.CLIPModel(config).save_pretrained(folder)
    tokenizer.save(folder)
    return folder


def config_of(data: Path, weights: Path, epochs: int) -> Any:
    """Returns the config of one stage on clips, raw or encoded."""
    config = umbenet.get_config("clips,single")
    config.data.update(dir=str(data), frames=FRAMES, sampling="middle")
    config.model.update(
        weights=str(weights), vision="clip", text="clip", frozen=("text_tower", "image_tower"),
        flip=0.0, shift=0.0, contrast=0.0, brightness=0.0,
    )  # fmt: skip
    config.stages.missing.update(epochs=epochs, batch_size=16)
    config.train.progress = False
    return config


def seconds(run: Callable[[], Any]) -> list[float]:
    """Returns the seconds of each epoch that is trained while `run` runs, validation left out."""
    times, epoch = [], Trainer._run_epoch

    def timed(self: Trainer, *arguments: Any) -> Any:
        start = time.perf_counter()
        series = epoch(self, *arguments)  # on the host: nothing is under way any more
        times.append(time.perf_counter() - start)
        return series

    Trainer._run_epoch = timed
    try:
        run()
    finally:
        Trainer._run_epoch = epoch
    return times


def main(argv):
    """Trains on both and prints what came out."""
    del argv
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        weights = write_weights(folder / "weights")
        storage = Storage(image_size=SIZE, detector="none", image_encoding="png")
        raw = write_clips(folder / "raw", _CLIPS.value)
        data = folder / "data"
        clips = prepared.prepare("clips", raw, data, aligned=False, view="clips", storage=storage)
        start = time.perf_counter()
        encoded = encode(clips, data, Encoding("clip", str(weights), frames=FRAMES))
        print(f"encoding: {time.perf_counter() - start:.1f} s")
        medians = {}
        for name, source in (("frames", clips), ("features", encoded)):
            config = config_of(source, weights, 1 + _EPOCHS.value)
            times = seconds(lambda c=config, n=name: loop.train(c, folder / n))
            medians[name] = float(np.median(times[1:]))
            print(f"{name}: {medians[name]:.2f} s an epoch, the first {times[0]:.1f} s")
        print(f"frames / features: {medians['frames'] / medians['features']:.1f}")


if __name__ == "__main__":
    app.run(main)
