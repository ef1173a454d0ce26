"""Seconds an epoch of UMBEnet on frames against features of the frozen tower, the same config.

    python -m tests.benchmarks.encoded_training

Clips of 8 frames of 64 x 64 and a sentence each, a CLIP with random weights: a vision transformer
of width 192 with 6 layers and patches of 8, a text tower of width 128 with 2, both frozen. The same
stage `missing` trains on the clips and on what they are encoded to, an epoch at a time, in turn.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from affectjax.data.batches import open_datasets
from affectjax.data.batches.tokenizer import Tokenizer
from affectjax.data.media.codec import encode as image_file
from affectjax.data.prepare import prepared
from affectjax.data.prepare.clip_storage import Storage
from affectjax.data.raw import sets
from affectjax.runtime import configs, parallel
from affectjax.runtime.preemption import Preemption
from affectjax.runtime.workdir import Workdir
from affectjax.tasks import base
from affectjax.training import run_config
from affectjax.training.evaluator import Evaluator
from affectjax.training.loop import Trainer
from affectjax.training.run_config import TrainConfig
from affectjax.weights.stored_features import Encoding, encode
from configs import umbenet
from tests.benchmarks import timing

CLIPS, FRAMES, SIZE = 64, 8, 64
CLASSES = sets.get("dfew").labels.classes


def write_clips(folder: Path) -> Path:
    """Returns a table of clips: some to train on, 8 each to validate and to test."""
    rng = np.random.default_rng(0)
    rows = ["id,split,label,video,text"]
    for i, split in enumerate(["train"] * CLIPS + ["valid"] * 8 + ["test"] * 8):
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


def config_of(data: Path, weights: Path) -> Any:
    """Returns the config of one stage on clips, raw or encoded."""
    config = umbenet.get_config("clips,single")
    config.data.update(dir=str(data), frames=FRAMES, sampling="middle")
    config.model.update(
        weights=str(weights), vision="clip", text="clip", frozen=("text_tower", "image_tower"),
        flip=0.0, shift=0.0, contrast=0.0, brightness=0.0, token_drop=0.0,
    )  # fmt: skip
    config.stages.missing.update(epochs=1, batch_size=16)
    config.train.update(progress=False, baselines=False)
    return config


def epoch_of(config: Any, workdir: Path) -> Callable[[], Any]:
    """Returns a function that trains for one epoch, the same examples each time."""
    config = run_config.resolve(config)
    datasets = open_datasets.open_all(run_config.data_sets(config))
    task = base.build(config, {n: d.inputs for n, d in datasets.items()}, parallel.AXIS)
    engine, seeds = parallel.Engine(config["parallel"]["engine"]), configs.seeds(config)
    settings = configs.read(TrainConfig, config["train"], "config.train")
    evaluator = Evaluator(task, datasets, engine, seeds, settings.eval_batch_size)
    folder = Workdir(workdir)
    folder.claim(config)
    trainer = Trainer(task, datasets, evaluator, engine, settings, seeds, folder)
    trainer._start(None)
    rows, preemption = trainer.program.draw_rows(0), Preemption()

    def epoch():
        trainer.state = trainer.program.start_epoch(trainer.state)
        return trainer._run_epoch(rows, preemption)  # on the host: nothing is under way any more

    return epoch


def rows(setting: timing.Setting) -> Iterator[timing.Row]:
    """Times an epoch on features and one on frames, and says how long encoding takes."""
    timing.need_torch()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        weights = write_weights(folder / "weights")
        storage = Storage(image_size=SIZE, detector="none", image_encoding="png")
        raw, data = write_clips(folder / "raw"), folder / "data"
        clips = prepared.prepare("clips", raw, data, aligned=False, view="clips", storage=storage)
        start = time.perf_counter()
        encoded = encode(clips, data, Encoding("clip", str(weights), frames=FRAMES))
        note = f"encoded in {time.perf_counter() - start:.1f} s"
        features = epoch_of(config_of(encoded, weights), folder / "features")
        frames = epoch_of(config_of(clips, weights), folder / "frames")
        yield timing.row("encoded_training", features, setting, "frames", frames, note=note)


if __name__ == "__main__":
    timing.main(rows)
