"""CLAP's audio tower against transformers' in PyTorch.

    python -m tests.benchmarks.htsat

The published size, batch 16, spectrograms of 10 s, features alone, float32, random weights; and
what the spectrograms cost on the device.
"""

import tempfile
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from affectjax import weights
from affectjax.models.clap import AudioTower
from affectjax.ops import mel
from affectjax.ops.mel import FrontEnd
from tests.benchmarks import timing

if timing.torch:
    import torch
    import transformers

BATCH, FRAMES, BANDS, RATE, SECONDS = 16, 1001, 64, 16000, 10


def torch_model():
    """Returns the tower of transformers, with weights that are not zero anywhere."""
    torch.manual_seed(0)
    model = transformers.ClapAudioModelWithProjection(transformers.ClapAudioConfig()).eval()
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.02 * torch.randn_like(value))
    return model


def torch_step(model, x: np.ndarray):
    """Returns a function that gives the features, and waits for them."""
    device = timing.torch_device()
    model, x = model.to(device), torch.from_numpy(x)[:, None].to(device)

    def step():
        with torch.no_grad():
            return model(x).audio_embeds.cpu().numpy()

    return step


def front_step(found: weights.ClapWeights):
    """Returns a function that makes spectrograms of sounds of 10 s at 16 kHz."""
    front = FrontEnd(**found.front)
    rng = np.random.default_rng(0)
    x = jnp.asarray(0.1 * rng.standard_normal((BATCH, SECONDS * RATE)), jnp.float32)
    mask = jnp.ones(x.shape, bool)
    program = timing.compiled(
        jax.jit(lambda x, mask: mel.spectrogram(x, mask, RATE, front)), x, mask
    )
    return lambda: program.run(x, mask)


def rows(setting: timing.Setting) -> Iterator[timing.Row]:
    """Times both towers, and the front end alone."""
    timing.need_torch()
    rng = np.random.default_rng(0)
    x = (-40 + 25 * rng.standard_normal((BATCH, FRAMES, BANDS))).astype(np.float32)
    model = torch_model()
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        found = weights.clap(folder)
    tower, theirs = AudioTower(**found.audio), torch_step(model, x)
    given = jax.device_put(({"params": found.params["audio_tower"]}, x))
    program = timing.compiled(jax.jit(lambda params, x: tower.apply(params, x)[0]), *given)

    def ours():
        return np.asarray(program.run(*given))

    note = timing.difference([ours()], [theirs()])
    yield timing.row("htsat", ours, setting, timing.PYTORCH, theirs, program=program, note=note)
    yield timing.row("htsat, spectrograms", front_step(found), setting)


if __name__ == "__main__":
    timing.main(rows)
