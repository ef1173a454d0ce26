"""A few training steps of MCR at the unaligned lengths: peak memory, time, time to compile.

    python -m tests.benchmarks.mcr_memory

Batch 16, lengths 50/375/500 of text, vision and audio, dims 300/35/74, 4 layers, 8 heads.
"""

import resource
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app, flags

from affectjax.models.mcr import MCR

_STEPS = flags.DEFINE_integer("steps", 3, "Steps that are timed.")

SHAPES = {"text": (50, 300), "audio": (500, 74), "vision": (375, 35)}
BATCH = 16


def main(argv):
    """Trains some steps and prints what they took."""
    del argv
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

    state = tx.init(params)
    start = time.perf_counter()
    run = jax.jit(update, donate_argnums=(0, 1)).lower(params, state, jax.random.key(0)).compile()
    print(f"compiled in {time.perf_counter() - start:.1f} s")
    seconds = []
    for step in range(_STEPS.value):
        start = time.perf_counter()
        params, state = run(params, state, jax.random.key(step))
        jax.block_until_ready(params)
        seconds.append(time.perf_counter() - start)
    planned = run.memory_analysis().temp_size_in_bytes / 2**30
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{np.median(seconds):.2f} s a step, median of {len(seconds)}")
    print(f"temporaries {planned:.2f} GiB, peak resident memory of the process {peak:.2f} GiB")


if __name__ == "__main__":
    app.run(main)
