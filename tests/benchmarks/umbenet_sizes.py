"""What of UMBEnet trains on DFEW and MAFW, and the memory that holds it; nothing is allocated.

    python -m tests.benchmarks.umbenet_sizes

The towers are CLIP's ViT-L/14 and CLAP's HTSAT. `state` is what lies in memory from step to step:
float32 parameters, those frozen and those trained, and Adam's two moments of the latter. A step
with LoRA holds besides, while it lasts, the adapted kernels and their gradient, `adapted` each.
Activations, which depend on batch and device, are not counted.
"""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import jax

from affectjax.data.batches.inputs import Frames, Inputs, Text, Waveform
from affectjax.data.batches.tokenizer import Tokenizer
from affectjax.data.media import codec
from affectjax.data.raw import sets
from affectjax.ops.mel import FrontEnd
from affectjax.runtime import optim, steps
from affectjax.tasks.umbenet import Task
from affectjax.training import run_config

FILE = Path(__file__).parents[2] / "configs" / "umbenet.py"
VARIANTS = ("dfew", "dfew,lora", "mafw", "mafw,lora")
# The widths of the published models, as their config.json has them.
IMAGE = {
    "image_size": 224, "patch": 14, "width": 1024, "layers": 24, "heads": 16, "hidden": 4096,
    "projection": 768,
}  # fmt: skip
TEXT = {
    "vocab": 49408, "length": 77, "width": 768, "layers": 12, "heads": 12, "hidden": 3072,
    "projection": 768,
}  # fmt: skip
AUDIO = {
    "spec_size": 256, "mels": 64, "patch": 4, "width": 96, "depths": (2, 2, 6, 2),
    "heads": (4, 8, 16, 32), "window": 8, "projection": 512,
}  # fmt: skip
FRONT = FrontEnd(48000, 1024, 480, 1024, 64, low=0.0, high=14000.0, length=480000)


def task_of(variant: str) -> Task:
    """Returns the task of a variant, as if there were folders with the published weights."""
    spec = importlib.util.spec_from_file_location("umbenet", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config(variant)
    config.model.weights = "CLIP"
    if "clap_weights" in config.model:
        config.model.clap_weights = "CLAP"
    whole = run_config.resolve(config)
    labels = sets.get(config.data.name).labels
    words = Tokenizer.train(labels.classes)
    kinds = {
        "audio": Waveform(codec.samples(config.data.seconds)),
        "vision": Frames(config.data.frames, config.data.image_size),
    }
    if "tokens" in config.data:
        kinds = {"text": Text(config.data.tokens), **kinds}
    none = {"image_tower": {}, "text_tower": {}, "audio_tower": {}}
    pixels = {"mean": (0.5,) * 3, "std": (0.25,) * 3, "logit_scale": 100.0}
    clip = SimpleNamespace(image=IMAGE, text=TEXT, params=none, **pixels)
    clap = SimpleNamespace(audio=AUDIO, front=vars(FRONT), params=none)
    with (
        mock.patch("affectjax.weights.from_clip.clip", lambda folder: clip),
        mock.patch("affectjax.weights.clap", lambda folder: clap),
        mock.patch.object(Tokenizer, "load", lambda folder: words),
    ):
        return Task(whole, Inputs(kinds, labels, tokenizer=words), None)


def sizes(task: Task) -> dict[str, Any]:
    """Returns how many numbers train and are frozen, and bytes of the state and of `adapted`."""
    stage, batch = task.stages[-1], task.inputs.zeros(2)
    params = jax.eval_shape(lambda key: task.init(key, batch)[0], jax.random.key(0))
    trained, frozen = steps.split_params(params, stage.trains)
    moments = jax.eval_shape(optim.optimizer(stage.optim).init, trained)
    total = lambda tree, of: sum(of(x) for x in jax.tree.leaves(tree))  # noqa: E731
    count: Callable[[Any], int] = lambda x: x.size  # noqa: E731
    memory: Callable[[Any], int] = lambda x: x.size * x.dtype.itemsize  # noqa: E731
    added = jax.tree_util.tree_leaves_with_path(params.get("lora", {}))
    kernels = {jax.tree_util.keystr(path[:-1], simple=True, separator="/") for path, _ in added}
    adapted = 0
    for path in kernels:
        kernel = params
        for name in path.split("/"):
            kernel = kernel[name]
        adapted += memory(kernel)
    return {
        "lora": total(params.get("lora", {}), count),
        "trained": total(trained, count),
        "frozen": total(frozen, count),
        "moments": total(moments, memory),
        "state": total((trained, frozen, moments), memory),
        "adapted": adapted,
    }


def main() -> None:
    """Prints a row a variant."""
    print("variant     of LoRA  trained   frozen   moments     state   adapted")
    for variant in VARIANTS:
        found = sizes(task_of(variant))
        millions = (f"{found[name] / 1e6:7.2f}M" for name in ("lora", "trained", "frozen"))
        memory = (f"{found[name] / 2**20:6.0f}MiB" for name in ("moments", "state", "adapted"))
        print(f"{variant:10}", *millions, *memory)


if __name__ == "__main__":
    main()
