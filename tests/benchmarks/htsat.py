"""CLAP's audio tower against transformers' in PyTorch, in turn, in one process.

    python -m tests.benchmarks.htsat --steps=7

The published size, batch 16, spectrograms of 10 s, features alone, float32, random weights. Both on
what they find: JAX on its first device, PyTorch on a GPU where it has one. Prints medians, the
ratio (median of the pairs' ratios), the time to compile, the largest difference, and what the
spectrograms cost on the device.
"""

import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np
import torch
import transformers
from absl import app, flags

from affectjax import weights
from affectjax.models.clap import AudioTower
from affectjax.ops import mel
from affectjax.ops.mel import FrontEnd

_STEPS = flags.DEFINE_integer("steps", 7, "Pairs of steps that are timed, after two that are not.")
_BATCH = flags.DEFINE_integer("batch", 16, "Sounds a step.")
_THREADS = flags.DEFINE_integer("threads", 2, "Threads of PyTorch on a CPU; JAX takes all cores.")

FRAMES, BANDS, RATE, SECONDS = 1001, 64, 16000, 10


def torch_model() -> torch.nn.Module:
    """Returns the tower of transformers, with weights that are not zero anywhere."""
    torch.manual_seed(0)
    model = transformers.ClapAudioModelWithProjection(transformers.ClapAudioConfig()).eval()
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.02 * torch.randn_like(value))
    return model


def torch_step(model: torch.nn.Module, x: np.ndarray):
    """Returns a function that gives the features, and waits for them."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_num_threads(_THREADS.value)
    model, x = model.to(device), torch.from_numpy(x)[:, None].to(device)

    def step():
        with torch.no_grad():
            return model(x).audio_embeds.cpu().numpy()

    return step


def jax_step(found: weights.ClapWeights, x: np.ndarray):
    """Returns a function that gives the features and waits, and the seconds to compile."""
    tower = AudioTower(**found.audio)
    params, x = jax.device_put({"params": found.params["audio_tower"]}), jnp.asarray(x)
    start = time.perf_counter()
    run = jax.jit(lambda params, x: tower.apply(params, x)[0]).lower(params, x).compile()
    compiled = time.perf_counter() - start
    return lambda: np.asarray(run(params, x)), compiled


def front_step(found: weights.ClapWeights):
    """Returns a function that makes spectrograms of sounds of 10 s at 16 kHz, and waits."""
    front = FrontEnd(**found.front)
    rng = np.random.default_rng(0)
    x = jnp.asarray(0.1 * rng.standard_normal((_BATCH.value, SECONDS * RATE)), jnp.float32)
    mask = jnp.ones(x.shape, bool)
    run = jax.jit(lambda x, mask: mel.spectrogram(x, mask, RATE, front))
    return lambda: jax.block_until_ready(run(x, mask))


def timed(step) -> float:
    """Returns the seconds that a call takes."""
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def main(argv):
    """Times both in turn and prints what came out."""
    del argv
    rng = np.random.default_rng(0)
    x = (-40 + 25 * rng.standard_normal((_BATCH.value, FRAMES, BANDS))).astype(np.float32)
    model = torch_model()
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        found = weights.clap(folder)
    (ours, compiled), theirs, front = jax_step(found, x), torch_step(model, x), front_step(found)
    for _ in range(2):
        a, b = ours(), theirs()
        front()
    pairs = np.array([(timed(ours), timed(theirs), timed(front)) for _ in range(_STEPS.value)])
    one, other, heard = np.median(pairs, axis=0)
    ratio = np.median(pairs[:, 0] / pairs[:, 1])
    print(f"affectjax {1000 * one:.0f} ms, PyTorch {1000 * other:.0f} ms, medians of {len(pairs)}")
    print(f"affectjax / PyTorch: {ratio:.2f}; compiled in {compiled:.1f} s")
    print(f"largest difference over the largest value: {np.abs(a - b).max() / np.abs(b).max():.1e}")
    print(f"waveforms to spectrograms: {1000 * heard:.0f} ms")


if __name__ == "__main__":
    app.run(main)
