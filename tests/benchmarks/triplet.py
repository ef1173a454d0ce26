"""The triplet loss, forward and backward, on a batch of three modalities of 64 examples.

    python -m tests.benchmarks.triplet --repeats=20

Prints medians of milliseconds a step: alone, in a scan of 20 steps, and three models under vmap in
such a scan; and the memory that the first takes beside its inputs and outputs.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from jax import lax

from affectjax.ops.contrast import triplet

_REPEATS = flags.DEFINE_integer("repeats", 20, "Calls that are timed, after one that is not.")

EACH, WIDTH, STEPS, SEEDS = 64, 256, 20, 3


def median_ms(function, *arguments) -> float:
    """Returns the median time of a call."""
    jax.block_until_ready(function(*arguments))
    seconds = []
    for _ in range(_REPEATS.value):
        start = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        seconds.append(time.perf_counter() - start)
    return 1000 * float(np.median(seconds))


def main(argv):
    """Times all three and prints what came out."""
    del argv
    rng = np.random.default_rng(0)
    modality = jnp.repeat(jnp.arange(3), EACH)
    label, weight = jnp.array(rng.integers(0, 3, 3 * EACH)), jnp.ones(3 * EACH)
    draws = rng.standard_normal((SEEDS, 3 * EACH, WIDTH)).astype(np.float32)

    def step(features):
        (loss, _), slope = jax.value_and_grad(triplet, has_aux=True)(
            features, modality, label, weight
        )
        return features - slope, loss

    def steps(function):
        return jax.jit(lambda x: lax.scan(lambda x, _: function(x), x, length=STEPS))

    alone = jax.jit(step)
    memory = alone.lower(draws[0]).compile().memory_analysis().temp_size_in_bytes / 2**20
    print(f"alone {median_ms(alone, draws[0]):.2f} ms, {memory:.1f} MiB")
    print(f"in a scan of {STEPS}: {median_ms(steps(step), draws[0]) / STEPS:.2f} ms a step")
    both = median_ms(steps(jax.vmap(step)), draws) / STEPS
    print(f"{SEEDS} models in a scan of {STEPS}: {both:.2f} ms a step")


if __name__ == "__main__":
    app.run(main)
