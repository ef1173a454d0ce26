"""Training steps of ResNet-18 on small faces against PyTorch's.

    python -m tests.benchmarks.resnet_step

Random faces of 48 x 48 in batches of 64, forward, backward and AdamW; affectjax takes four steps in
one `lax.scan`, as the training loop does, PyTorch (the model of transformers) one after the other.
The parameters of both are counted and must be as many.

The matrix products of an image, counted by hand, one multiply-add being two operations: 10.8 M in
the stem, 42.5 M in the first stage, 37.7 M in the second and third, 66.1 M in the last, 195 M in
all; a step takes three passes, so 37 G for 64 images.
That is with the padding, of which `ops.convolution` leaves out most on a CPU: 27 G without it.
"""

from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from affectjax.models import resnet
from tests.benchmarks import timing

if timing.torch:
    import torch
    import transformers

STEPS, BATCH, SIZE, RATE, DECAY = 4, 64, 48, 1e-4, 1e-5


def jax_steps(images: np.ndarray) -> tuple[Callable[[], object], timing.Program, int]:
    """Returns a function that takes four steps, its program, and how many parameters train.

    Args:
      images: `[STEPS, B, H, W, 3]`.
    """
    net, optimizer = resnet.ResNet18(), optax.adamw(RATE, weight_decay=DECAY)
    made = jax.jit(lambda: net.init(jax.random.key(0), images[0, :1], train=False))()
    state = made["params"], made["batch_stats"], optimizer.init(made["params"])

    def step(state, x):
        params, stats, moments = state

        def loss(params):
            variables = {"params": params, "batch_stats": stats}
            (feature, _), moved = net.apply(variables, x, train=True, mutable=["batch_stats"])
            return jnp.square(feature).mean(), moved["batch_stats"]

        (value, moved), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        updates, moments = optimizer.update(gradient, moments, params)
        return (optax.apply_updates(params, updates), moved, moments), value

    steps = jax.jit(lambda state, images: lax.scan(step, state, images))
    images = jnp.asarray(images)
    program = timing.compiled(steps, state, images)
    count = sum(x.size for x in jax.tree.leaves(made["params"]))
    return lambda: program.run(state, images), program, count


def torch_steps(images: np.ndarray) -> tuple[Callable[[], None], int]:
    """Returns a function that takes four steps in PyTorch and waits, and how many train."""
    config = transformers.ResNetConfig(
        layer_type="basic", depths=[2, 2, 2, 2], hidden_sizes=[64, 128, 256, 512]
    )
    device = timing.torch_device()
    model = transformers.ResNetModel(config).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), RATE, weight_decay=DECAY)
    given = torch.from_numpy(images.transpose(0, 1, 4, 2, 3).copy()).to(device)

    def once():
        for x in given:
            optimizer.zero_grad()
            loss = model(x).pooler_output.square().mean()
            loss.backward()
            optimizer.step()
        loss.item()

    return once, sum(p.numel() for p in model.parameters())


def rows(setting: timing.Setting) -> Iterator[timing.Row]:
    """Times a step of both."""
    shape = (STEPS, BATCH, SIZE, SIZE, 3)
    images = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    ours, program, count = jax_steps(images)
    theirs = None
    if timing.torch:
        theirs, others = torch_steps(images)
        timing.same_parameters(count, others)
    yield timing.row(
        "resnet_step", ours, setting, timing.PYTORCH, theirs, program=program, each=STEPS
    )


if __name__ == "__main__":
    timing.main(rows)
