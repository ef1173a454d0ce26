"""MulT's training step against the same network in PyTorch, in turn, in one process.

    python -m tests.benchmarks.mult_throughput --steps=15

Batch 24, lengths 50/50/50, dims 300/74/35, width 30, 10 heads, 4 layers; dropout, Adam, clipping.
Prints medians, the ratio of throughputs (median of the pairs' ratios) and the time to compile.
"""

import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from absl import app, flags

sys.path.insert(0, str(Path(__file__).parents[1]))
import torch_mult

from affectjax.models.mult import MulT

_STEPS = flags.DEFINE_integer(
    "steps", 15, "Pairs of steps that are timed, after three that are not."
)
_THREADS = flags.DEFINE_integer("threads", 2, "Threads of PyTorch; JAX takes all cores.")

DIMS = {"text": 300, "audio": 74, "vision": 35}
BATCH, LENGTH = 24, 50


def inputs() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Returns random sequences `[B, T, D_m]` and scores `[B]`."""
    rng = np.random.default_rng(0)
    x = {m: rng.normal(size=(BATCH, LENGTH, d)).astype(np.float32) for m, d in DIMS.items()}
    return x, rng.normal(size=BATCH).astype(np.float32)


def torch_step():
    """Returns a function that makes one step in PyTorch and waits for it."""
    torch.set_num_threads(_THREADS.value)
    model = torch_mult.MulT(DIMS, attention_dropout=(0.1, 0.1, 0.1)).train()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    x, y = inputs()
    x, y = {m: torch.from_numpy(v) for m, v in x.items()}, torch.from_numpy(y)

    def step():
        optimizer.zero_grad()
        loss = (model(x)[:, 0] - y).abs().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    return step


def jax_step():
    """Returns a function that makes one step in JAX and waits, and the seconds to compile."""
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
    start = time.perf_counter()
    run = jax.jit(update, donate_argnums=(0, 1))
    run = run.lower(held["params"], held["state"], jax.random.key(0)).compile()
    compiled = time.perf_counter() - start

    def step():
        key = jax.random.fold_in(jax.random.key(0), held["step"])
        held["params"], held["state"], loss = run(held["params"], held["state"], key)
        held["step"] += 1
        return float(loss)

    return step, compiled


def timed(step) -> float:
    """Returns the seconds that a call takes."""
    start = time.perf_counter()
    step()
    return time.perf_counter() - start


def main(argv):
    """Times both in turn and prints what came out."""
    del argv
    (ours, compiled), theirs = jax_step(), torch_step()
    for _ in range(3):
        ours(), theirs()
    pairs = np.array([(timed(ours), timed(theirs)) for _ in range(_STEPS.value)])
    a, b = np.median(pairs, axis=0)
    ratio = np.median(pairs[:, 1] / pairs[:, 0])
    print(f"affectjax {1000 * a:.0f} ms a step, PyTorch {1000 * b:.0f} ms, medians of {len(pairs)}")
    print(f"throughput of affectjax / PyTorch: {ratio:.2f}; compiled in {compiled:.1f} s")


if __name__ == "__main__":
    app.run(main)
