"""Training steps of MCR at the unaligned lengths: memory, time, time to compile.

    python -m tests.benchmarks.mcr_memory

Batch 16, lengths 50/375/500 of text, vision and audio, dims 300/35/74, 4 layers, 8 heads.
"""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import optax

from affectjax.models.mcr import MCR
from tests.benchmarks import timing

SHAPES = {"text": (50, 300), "audio": (500, 74), "vision": (375, 35)}
BATCH = 16


def rows(setting: timing.Setting) -> Iterator[timing.Row]:
    """Times a step."""
    rng = np.random.default_rng(0)
    batch = {
        m: {
            "x": jnp.asarray(rng.normal(size=(BATCH, *shape)), jnp.float32),
            "mask": jnp.ones((BATCH, shape[0]), bool),
        }
        for m, shape in SHAPES.items()
    }
    model = MCR(1, tuple(SHAPES), dict.fromkeys(SHAPES, 3), heads=8, layers=4)
    params = jax.jit(lambda key: model.init(key, batch, train=False)["params"])(jax.random.key(0))
    tx = optax.adam(1e-3)

    def update(params, state, key):
        def loss(params):
            score, _ = model.apply({"params": params}, batch, train=True, rngs={"dropout": key})
            return jnp.abs(score).mean()

        grads = jax.grad(loss)(params)
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    key = jax.random.key(0)
    held = [params, tx.init(params)]
    program = timing.compiled(jax.jit(update, donate_argnums=(0, 1)), *held, key)

    def step():
        held[:] = program.run(*held, key)
        return held

    yield timing.row("mcr_memory", step, setting, program=program)


if __name__ == "__main__":
    timing.main(rows)
