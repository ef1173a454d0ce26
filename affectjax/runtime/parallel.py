"""The device axis: one per-device function, run by pmap or by shard_map, on one device or many.

The functions that go in know one thing of it: the axis is called `AXIS`, and they reduce over it.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from affectjax.runtime import compilation

AXIS = "batch"
ENGINES = ("pmap", "shard_map")
Tree = Any


@dataclasses.dataclass(frozen=True)
class ParallelConfig:
    """`config.parallel`.

    Attributes:
      engine: "pmap" or "shard_map"; the same numbers.
      coordinator: "host:port" of process 0, "" for a run of one process.
      processes: how many processes share the run.
      process: this one's number, from 0; the launchers set it.
      compilation_cache: a folder in which what was compiled is kept for later runs, "" for the one
        beside the prepared data, "off" for none.
    """

    engine: str = "pmap"
    coordinator: str = ""
    processes: int = 1
    process: int = 0
    compilation_cache: str = ""

    def __post_init__(self):
        if self.engine not in ENGINES:
            raise ValueError(f"engine is {self.engine!r}; allowed: {', '.join(ENGINES)}")
        if self.processes < 1 or not 0 <= self.process < self.processes:
            raise ValueError(
                f"process is {self.process} and processes {self.processes}; allowed: processes 1 "
                "or more, process from 0 to processes - 1"
            )
        if self.processes > 1 and not self.coordinator:
            raise ValueError("processes > 1 needs coordinator, as in 10.0.0.1:8476")


def initialize(config: ParallelConfig) -> None:
    """Joins the processes of one run, if there are several, and keeps what they compile.

    Call it before any device is used.
    """
    compilation.keep(config.compilation_cache)
    if config.processes > 1:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(config.coordinator, config.processes, config.process)


class Engine:
    """Places trees on the devices and compiles per-device functions over them.

    A replicated tree has the same value on every device; a sharded one is split along one axis of
    each leaf. What a compiled function returns must be replicated (reduced or gathered over AXIS).
    """

    def __init__(self, kind: str, devices: Sequence[jax.Device] | None = None):
        self.kind = kind
        self.devices = list(devices or jax.devices())
        self.local = [d for d in self.devices if d.process_index == jax.process_index()]
        self.mesh = Mesh(np.array(self.devices), (AXIS,))
        self.local_mesh = Mesh(np.array(self.local), (AXIS,))

    @property
    def count(self) -> int:
        """How many devices share a batch, over all processes."""
        return len(self.devices)

    def columns(self, batch: int) -> int:
        """Returns the width of a batch that all devices share evenly: at least `batch`."""
        return -(-batch // self.count) * self.count

    def mine(self, rows: np.ndarray) -> np.ndarray:
        """Returns the part of `rows` `[..., columns]` that this process loads."""
        each = rows.shape[-1] // jax.process_count()
        return rows[..., jax.process_index() * each :][..., :each]

    def replicate(self, tree: Tree) -> Tree:
        """Returns `tree` (host or device arrays, the same in every process) on every device."""
        if self.kind == "shard_map":
            return self._place(tree, P(), self.mesh)
        many = lambda x: np.broadcast_to(x, (len(self.local), *np.shape(x)))  # noqa: E731
        return self._place(jax.tree.map(many, jax.device_get(tree)), P(AXIS), self.local_mesh)

    def shard(self, tree: Tree, axis: int) -> Tree:
        """Returns `tree` split along `axis` of each leaf; each process gives its own part."""
        if self.kind == "shard_map":
            return self._place(tree, P(*[None] * axis, AXIS), self.mesh)
        split = lambda x: np.stack(np.split(np.asarray(x), len(self.local), axis))  # noqa: E731
        return self._place(jax.tree.map(split, tree), P(AXIS), self.local_mesh)

    def _place(self, tree: Tree, spec: P, mesh: Mesh) -> Tree:
        place = functools.partial(jax.make_array_from_process_local_data, NamedSharding(mesh, spec))
        return jax.tree.map(lambda x: place(np.asarray(x)), tree)

    def fetch(self, tree: Tree) -> Tree:
        """Returns one copy of a replicated tree as NumPy arrays."""
        shards = jax.tree.map(lambda x: x.addressable_shards[0].data, tree)
        host = jax.device_get(shards)
        return host if self.kind == "shard_map" else jax.tree.map(lambda x: x[0], host)

    def compile(
        self, function: Callable[..., Tree], axes: Sequence[int | None], donate: Sequence[int] = ()
    ) -> Callable[..., Tree]:
        """Returns `function` over all devices.

        Args:
          function: per device; reduces over AXIS all that it returns.
          axes: for each argument, the axis that is split, or None where it is replicated.
          donate: arguments whose memory may be reused.
        """
        if self.kind == "pmap":
            return jax.pmap(function, AXIS, devices=self.devices, donate_argnums=tuple(donate))
        specs = tuple(P() if axis is None else P(*[None] * axis, AXIS) for axis in axes)
        mapped = jax.shard_map(
            function, mesh=self.mesh, in_specs=specs, out_specs=P(), check_vma=False
        )
        return jax.jit(mapped, donate_argnums=tuple(donate))


def over_seeds(function: Callable[..., Tree], seeds: int, axes: Sequence[int | None]) -> Callable:
    """Returns `function` of one model as one of several, by vmap; of one, without a batch axis.

    Args:
      function: on the trees of one model.
      seeds: how many models; the arguments and results have an axis of this length.
      axes: for each argument 0 where it has that axis, None where the models share it.
    """
    if seeds > 1:
        return jax.vmap(function, in_axes=tuple(axes))

    @functools.wraps(function)
    def single(*arguments):
        pairs = zip(arguments, axes, strict=True)
        bare = [a if axis is None else jax.tree.map(lambda x: x[0], a) for a, axis in pairs]
        return jax.tree.map(lambda x: x[None], function(*bare))

    return single
