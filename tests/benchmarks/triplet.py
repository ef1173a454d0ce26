"""The triplet loss, forward and backward, on a batch of three modalities of 64 examples.

    python -m tests.benchmarks.triplet

A step alone, in a scan of 20 steps, and of three models under vmap in such a scan.
"""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from affectjax.ops.contrast import triplet
from tests.benchmarks import timing

EACH, WIDTH, STEPS, SEEDS = 64, 256, 20, 3


def rows(setting: timing.Setting) -> Iterator[timing.Row]:
    """Times all three; the latter two against the first."""
    rng = np.random.default_rng(0)
    modality = jnp.repeat(jnp.arange(3), EACH)
    label, weight = jnp.array(rng.integers(0, 3, 3 * EACH)), jnp.ones(3 * EACH)
    draws = jnp.asarray(rng.standard_normal((SEEDS, 3 * EACH, WIDTH)), jnp.float32)

    def step(features):
        (loss, _), slope = jax.value_and_grad(triplet, has_aux=True)(
            features, modality, label, weight
        )
        return features - slope, loss

    def steps(function):
        return jax.jit(lambda x: lax.scan(lambda x, _: function(x), x, length=STEPS))

    alone = timing.compiled(jax.jit(step), draws[0])
    scan = timing.compiled(steps(step), draws[0])
    models = timing.compiled(steps(jax.vmap(step)), draws)
    one = draws[0]
    yield timing.row("triplet", lambda: alone.run(one), setting, program=alone)
    for name, program, given, each in (
        ("triplet, in a scan", scan, one, STEPS),
        (f"triplet, {SEEDS} models in a scan", models, draws, STEPS * SEEDS),
    ):
        yield timing.row(
            name, lambda p=program, x=given: p.run(x), setting, "a step alone",
            lambda: alone.run(one), program=program, each=each, other_each=1,
        )  # fmt: skip


if __name__ == "__main__":
    timing.main(rows)
