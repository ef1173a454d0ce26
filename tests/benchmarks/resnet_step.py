"""Training steps of ResNet-18 on small faces: affectjax, XLA's convolution and PyTorch, in turn.

    python -m tests.benchmarks.resnet_step --rounds=3

Random faces of 48 x 48 in batches of 64, forward, backward and AdamW; affectjax takes four steps in
one `lax.scan`, as the training loop does, PyTorch (the model of transformers) one after the other.
The parameters of both are counted and must be as many. `as it is` runs `ops.convolution`, which is
windows on a CPU and XLA's convolution on an accelerator; `XLA` is the latter everywhere.

The matrix products of an image, counted by hand, one multiply-add being two operations: 10.8 M in
the stem, 42.5 M in the first stage, 37.7 M in the second and third, 66.1 M in the last, 195 M in
all; a step takes three passes, so 37 G for 64 images.
"""

import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app, flags
from jax import lax

from affectjax.models import resnet

try:  # The comparison is all that needs it.
    import torch
    import transformers
except ImportError:
    torch = None

_ROUNDS = flags.DEFINE_integer("rounds", 3, "Times that each is run, after once that is not timed.")
_BATCH = flags.DEFINE_integer("batch", 64, "Images in a batch.")
_XLA = flags.DEFINE_bool("xla", True, "Whether to run XLA's convolution too: minutes on a CPU.")
_SIZE = flags.DEFINE_integer("size", 48, "Side of an image in pixels.")

STEPS, RATE, DECAY = 4, 1e-4, 1e-5


def convolution(x, kernel, stride, padding):
    """Returns XLA's convolution, whatever the device."""
    pads = [(padding, padding)] * 2
    numbers = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (stride, stride), pads, dimension_numbers=numbers)


def jax_steps(images: np.ndarray, conv2d: Callable) -> tuple[Callable[[], None], int]:
    """Returns a function that takes four steps and waits, and how many parameters train.

    Args:
      images: `[STEPS, B, H, W, 3]`.
      conv2d: which convolution.
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

    ours, resnet.conv2d = resnet.conv2d, conv2d
    try:
        run = jax.jit(lambda state: lax.scan(step, state, images)).lower(state).compile()
    finally:
        resnet.conv2d = ours
    count = sum(x.size for x in jax.tree.leaves(made["params"]))
    return lambda: jax.block_until_ready(run(state)), count


def torch_steps(images: np.ndarray) -> tuple[Callable[[], None], int]:
    """Returns what `jax_steps` does, by PyTorch."""
    config = transformers.ResNetConfig(
        layer_type="basic", depths=[2, 2, 2, 2], hidden_sizes=[64, 128, 256, 512]
    )
    device = "cuda" if jax.default_backend() == "gpu" and torch.cuda.is_available() else "cpu"
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


def timed(run: Callable[[], None]) -> float:
    """Returns the seconds that a call takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main(argv):
    """Times all in turn and prints what came out."""
    del argv
    shape = (STEPS, _BATCH.value, _SIZE.value, _SIZE.value, 3)
    images = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    runs = {"as it is": jax_steps(images, resnet.conv2d)}
    if _XLA.value:
        runs["XLA"] = jax_steps(images, convolution)
    if torch is not None:
        runs["PyTorch"] = torch_steps(images)
    if len({count for _, count in runs.values()}) != 1:
        raise SystemExit(f"parameters: { ({name: count for name, (_, count) in runs.items()}) }")
    for run, _ in runs.values():
        run()
    rounds = np.array([[timed(run) for run, _ in runs.values()] for _ in range(_ROUNDS.value)])
    medians = dict(zip(runs, np.median(rounds, axis=0), strict=True))
    print(f"{jax.devices()[0].device_kind}, batch {_BATCH.value}, {_SIZE.value} pixels")
    for name, seconds in medians.items():
        rate = STEPS * _BATCH.value / seconds
        times = seconds / medians["as it is"]
        print(f"{name}: {1000 * seconds / STEPS:.1f} ms a step, {rate:.1f} images/s, {times:.2f} x")


if __name__ == "__main__":
    app.run(main)
