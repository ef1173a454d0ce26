"""MulT's training step against the same network in PyTorch.

    python -m tests.benchmarks.mult_throughput

Batch 24, lengths 50/50/50, dims 300/74/35, width 30, 10 heads, 4 layers; dropout, Adam, clipping.
"""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import optax

from affectjax.models.mult import MulT
from tests.benchmarks import timing

if timing.torch:
    import torch

    from tests import torch_mult

DIMS = {"text": 300, "audio": 74, "vision": 35}
BATCH, LENGTH = 24, 50


def inputs() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Returns random sequences `[B, T, D_m]` and scores `[B]`."""
    rng = np.random.default_rng(0)
    x = {m: rng.normal(size=(BATCH, LENGTH, d)).astype(np.float32) for m, d in DIMS.items()}
    return x, rng.normal(size=BATCH).astype(np.float32)


def torch_step():
    """Returns a function that makes one step in PyTorch and waits for it."""
    device = timing.torch_device()
    model = torch_mult.MulT(DIMS, attention_dropout=(0.1, 0.1, 0.1)).train().to(device)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    x, y = inputs()
    x, y = {m: torch.from_numpy(v).to(device) for m, v in x.items()}, torch.from_numpy(y).to(device)

    def step():
        optimizer.zero_grad()
        loss = (model(x)[:, 0] - y).abs().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    return step


def jax_step():
    """Returns a function that makes one step in JAX and waits, and its program."""
    model = MulT(1, tuple(DIMS), dict.fromkeys(DIMS, 1))
    x, y = inputs()
    batch = {m: {"x": jnp.asarray(v), "mask": jnp.ones(v.shape[:2], bool)} for m, v in x.items()}
    params = jax.jit(lambda key: model.init(key, batch, train=False)["params"])(jax.random.key(0))
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3))

    def update(params, state, key):
        def loss(params):
            score, _ = model.apply({"params": params}, batch, train=True, rngs={"dropout": key})
            return jnp.abs(score[:, 0] - y).mean()

        value, grads = jax.value_and_grad(loss)(params)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state, value

    held = {"params": params, "state": tx.init(params), "step": 0}
    update = jax.jit(update, donate_argnums=(0, 1))
    program = timing.compiled(update, held["params"], held["state"], jax.random.key(0))

    def step():
        key = jax.random.fold_in(jax.random.key(0), held["step"])
        held["params"], held["state"], loss = program.run(held["params"], held["state"], key)
        held["step"] += 1
        return float(loss)

    return step, program


def rows(setting: timing.Setting) -> Iterator[timing.Row]:
    """Times both."""
    ours, program = jax_step()
    theirs = torch_step() if timing.torch else None
    yield timing.row("mult_throughput", ours, setting, timing.PYTORCH, theirs, program=program)


if __name__ == "__main__":
    timing.main(rows)
