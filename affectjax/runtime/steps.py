"""What is compiled: one training step, one prediction, and the scans over them.

Each function here is one transform, per model and per device; `Engine.compile` and `over_seeds` add
the other axes. Letters: B examples on this device, C steps in one call.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import traverse_util
from jax import lax

from affectjax.runtime.parallel import AXIS

Tree = Any
State = dict[str, Tree]
Batch = dict[str, Any]
Pick = Callable[[Tree, Tree], Batch]
# The measurement by which the others are weighted when an epoch is averaged: the weight of the
# batch, or of that part of it which the loss counted, when the loss measures it.
EXAMPLES = "examples"


def split_params(params: Tree, trains: Callable[[str], bool]) -> tuple[Tree, Tree]:
    """Returns the parameters that train, and the frozen others.

    Args:
      params: nested dicts.
      trains: predicate over paths such as "head/kernel".
    """
    flat = traverse_util.flatten_dict(params, sep="/")
    parts = ({}, {})
    for path, leaf in flat.items():
        parts[0 if trains(path) else 1][path] = leaf
    return tuple(traverse_util.unflatten_dict(part, sep="/") for part in parts)


def merge_params(trained: Tree, frozen: Tree) -> Tree:
    """Returns what `split_params` took apart."""
    flat = traverse_util.flatten_dict(trained) | traverse_util.flatten_dict(frozen)
    return traverse_util.unflatten_dict(flat)


def new_state(
    params: Tree,
    variables: Tree,
    tx: optax.GradientTransformation,
    key: jax.Array,
    *,
    averaged: bool = False,
) -> State:
    """Returns the state of one model at the start of a stage.

    Args:
      params: those that train.
      variables: other collections.
      tx: the optimizer.
      key: of the stage.
      averaged: whether to keep a running average of the parameters.
    """
    average = {"average": params} if averaged else {}
    return average | {
        "params": params,
        "variables": variables,
        "opt": tx.init(params),
        "step": jnp.zeros((), jnp.int32),
        "rng": jax.random.key_data(key),
        "scale": jnp.ones(()),
        "active": jnp.ones((), bool),
    }


def model_of(state: State) -> dict[str, Tree]:
    """Returns the model that counts: averaged parameters where there are, and variables."""
    return {"params": state.get("average", state["params"]), "variables": state["variables"]}


def train_step(
    loss: Callable[..., Any],
    tx: optax.GradientTransformation,
    average_decay: float = 0.0,
) -> Callable[..., tuple[State, dict[str, jax.Array]]]:
    """Returns the step `(state, frozen, batch, rate, settings) -> (state, measurements)`.

    `rate` is the learning rate of the step, and `settings` are `Stage.settings`.

    Args:
      loss: see `Stage.loss`.
      tx: the optimizer, at a learning rate of one.
      average_decay: of the running average of the parameters, if the state has one.
    """

    def step(state, frozen, batch, rate, settings):
        rate = rate * state["scale"]
        rng = jax.random.fold_in(jax.random.wrap_key_data(state["rng"]), state["step"])

        def objective(params):
            params = merge_params(params, frozen)
            return loss(params, state["variables"], batch, rng, **settings)

        (_, (variables, measured)), grads = jax.value_and_grad(objective, has_aux=True)(
            state["params"]
        )
        if EXAMPLES not in measured:
            measured[EXAMPLES] = batch["weight"].sum()
        examples = lax.psum(measured.pop(EXAMPLES), AXIS)
        grads, measured = lax.pmean((grads, measured), AXIS)
        updates, opt = tx.update(grads, state["opt"], state["params"])
        updates = jax.tree.map(lambda u: u * rate, updates)
        measured |= {
            "grad_norm": optax.tree.norm(grads),
            "update_norm": optax.tree.norm(updates),
            "learning_rate": rate,
            EXAMPLES: examples,
        }
        new = {
            "params": optax.apply_updates(state["params"], updates),
            "variables": variables,
            "opt": opt,
            "step": state["step"] + 1,
        }
        if "average" in state:
            new["average"] = optax.incremental_update(
                new["params"], state["average"], 1.0 - average_decay
            )
        return state | new, measured

    return step


def hold_finished(step: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a step that leaves a model as it is once its `active` is false.

    Of several models trained together, one may meet its stop rule before the others.
    """

    def held(state, *arguments):
        new, measured = step(state, *arguments)
        keep = lambda a, b: jnp.where(state["active"], a, b)  # noqa: E731
        return jax.tree.map(keep, new, state), measured

    return held


def pick_rows(data: Tree, rows: jax.Array) -> Batch:
    """Returns the batch for `rows` `[B]` of data `[N, ...]` on the device; -1 only pads."""
    batch = jax.tree.map(lambda x: x[jnp.maximum(rows, 0)], data)
    return batch | {"weight": (rows >= 0).astype(jnp.float32)}


def pick_given(data: Tree, batch: Batch) -> Batch:
    """Returns the batch as it was streamed to the device."""
    del data
    return batch


def train_chunk(step: Callable[..., Any], pick: Pick) -> Callable[..., Any]:
    """Returns `(state, frozen, data, numbers, xs) -> (state, measurements [C])`, a scan.

    `numbers` are `rate` `[C]`, the learning rates, and `settings`, see `train_step`.

    Args:
      step: see `train_step`.
      pick: makes the batch from `data` and one row of `xs`.
    """

    def run(state, frozen, data, numbers, xs):
        def one(state, inputs):
            x, rate = inputs
            return step(state, frozen, pick(data, x), rate, numbers["settings"])

        return lax.scan(one, state, (xs, numbers["rate"]))

    return run


def restrict(batch: Batch, keep: Mapping[str, jax.Array]) -> Batch:
    """Returns the batch with modality m absent, in every example, where `keep[m]` is false."""
    out = dict(batch) | {"present": dict(batch["present"])}
    for m, kept in keep.items():
        mask = batch[m]["mask"] & kept
        out[m] = {"x": jnp.where(kept, batch[m]["x"], 0), "mask": mask}
        out["present"][m] = batch["present"][m] & kept
    return out


def predict_batch(predict: Callable[..., Any]) -> Callable[..., Any]:
    """Returns `(params, variables, keep, batch) -> predictions [B of all devices, ...]`.

    Args:
      predict: see `Task.predict`.
    """

    def run(params, variables, keep, batch):
        out = predict(params, variables, restrict(batch, keep))
        return lax.all_gather(out, AXIS, tiled=True)

    return run


def keep_better(better: jax.Array, new: Tree, best: Tree) -> Tree:
    """Returns the model `new` where `better` (a bool), else `best`."""
    return jax.tree.map(lambda a, b: jnp.where(better, a, b), new, best)
