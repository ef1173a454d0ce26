"""The device axes: one per-device function, run by pmap or by shard_map, on one device or many.

The functions that go in know one thing of it: the axis is called `AXIS`, and they reduce over it.
Models of several seeds lie together on each device, or apart: each device has its own.

Letters: S seeds (models trained together), G groups of devices, each with S / G models of its own.
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from affectjax.errors import InputError
from affectjax.runtime import compilation, hosts

AXIS = "batch"
MODELS = "models"
ENGINES = ("pmap", "shard_map")
SEEDS = ("auto", "together", "apart")
_FLAGS, _DEVICES_FLAG = "XLA_FLAGS", "xla_force_host_platform_device_count"
Tree = Any


@dataclasses.dataclass(frozen=True)
class ParallelConfig:
    """`config.parallel`.

    Attributes:
      engine: "pmap" or "shard_map"; the same numbers.
      seeds: where the models of several seeds are: "together" on every device, a batch split over
        the devices; "apart", each device with models of its own (by shard_map, in one process);
        "auto": apart on CPUs, on which as many devices are made as there are seeds, else together.
      coordinator: "host:port" of process 0, "" for a run of one process.
      processes: how many processes share the run.
      process: this one's number, from 0; the launchers set it.
      compilation_cache: a folder in which what was compiled is kept for later runs, "" for the one
        beside the prepared data, "off" for none.
    """

    engine: str = "pmap"
    seeds: str = "auto"
    coordinator: str = ""
    processes: int = 1
    process: int = 0
    compilation_cache: str = ""

    def __post_init__(self):
        for key, allowed in (("engine", ENGINES), ("seeds", SEEDS)):
            if getattr(self, key) not in allowed:
                value = getattr(self, key)
                raise ValueError(f"{key} is {value!r}; allowed: {', '.join(allowed)}")
        if self.seeds == "apart" and self.processes > 1:
            raise ValueError('seeds is "apart", which is for one process')
        if self.processes < 1 or not 0 <= self.process < self.processes:
            raise ValueError(
                f"process is {self.process} and processes {self.processes}; allowed: processes 1 "
                "or more, process from 0 to processes - 1"
            )
        if self.processes > 1 and not self.coordinator:
            raise ValueError("processes > 1 needs coordinator, as in 10.0.0.1:8476")


def anywhere(flag: bool) -> bool:
    """Returns whether a flag is set in any process of the run; all get the same answer."""
    if jax.process_count() == 1:
        return flag
    return bool(multihost_utils.process_allgather(np.int32(flag)).any())


# Whether the devices of the CPU were made for models of several seeds.
_made = False


def initialize(config: ParallelConfig, seeds: int = 1) -> None:
    """Joins the processes of one run, if there are several, and keeps what they compile.

    Call it before any device is used: later, the CPU stays the one device that it is. Once joined,
    the processes stay so for the runs that follow, of the folds for instance.

    Args:
      config: see there.
      seeds: how many models are trained together.
    """
    compilation.keep(config.compilation_cache)
    if config.processes > 1:
        if not jax.distributed.is_initialized():
            jax.config.update("jax_cpu_collectives_implementation", "gloo")
            jax.distributed.initialize(config.coordinator, config.processes, config.process)
            hosts.connect(config.coordinator)
    elif seeds > 1 and config.seeds != "together":
        _make_devices(seeds)


def _make_devices(count: int) -> None:
    """Makes so many devices of the CPU, unless they are there or somebody has said how many."""
    global _made
    if _made or jax.config.jax_num_cpu_devices > 0 or _DEVICES_FLAG in os.environ.get(_FLAGS, ""):
        return
    try:
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError:  # they are there
        return
    _made = True


def engine(config: ParallelConfig, seeds: int) -> "Engine":
    """Returns the devices of a run of so many models.

    Raises:
      InputError: `config.seeds` is "apart" and the devices cannot have as many models each.
    """
    devices = jax.devices()
    if _made and devices[0].platform == "cpu":
        devices = devices[: seeds if seeds <= len(devices) else 1]
    platform = devices[0].platform
    apart = config.seeds == "apart" or (config.seeds == "auto" and platform == "cpu")
    groups = len(devices) if apart and seeds > 1 else 1
    if jax.process_count() > 1 or seeds % groups:
        if config.seeds == "apart":
            raise InputError(
                f'"config.parallel.seeds" is "apart", but {seeds} seeds cannot be shared evenly by '
                f"{groups} devices"
            )
        groups = 1
    return Engine(config.engine, devices, seeds, groups)


class Engine:
    """Places trees on the devices and compiles per-device functions over them.

    A replicated tree has the same value on every device; a sharded one is split along one axis of
    each leaf. What a compiled function returns must be replicated (reduced or gathered over AXIS).
    A tree of models has an axis of S first; each group of devices has its part of it.
    """

    def __init__(
        self,
        kind: str,
        devices: Sequence[jax.Device] | None = None,
        seeds: int = 1,
        groups: int = 1,
    ):
        """Takes all devices by default.

        Args:
          kind: one of `ENGINES`; several groups are always by shard_map.
          devices: which.
          seeds: S.
          groups: G.
        """
        self.kind = kind if groups == 1 else "shard_map"
        self.devices = list(devices or jax.devices())
        self.seeds, self.groups = seeds, groups
        self.local = [d for d in self.devices if d.process_index == jax.process_index()]
        self.mesh = Mesh(np.array(self.devices).reshape(groups, -1), (MODELS, AXIS))
        self.local_mesh = Mesh(np.array(self.local), (AXIS,))

    @property
    def count(self) -> int:
        """How many devices share a batch, over all processes."""
        return len(self.devices) // self.groups

    @property
    def copies(self) -> int:
        """How often a replicated tree lies in one memory: the devices of a CPU share it."""
        return len(self.local) if self.local[0].platform == "cpu" else 1

    def columns(self, batch: int) -> int:
        """Returns the width of a batch that all devices share evenly: at least `batch`."""
        return -(-batch // self.count) * self.count

    def mine(self, rows: np.ndarray) -> np.ndarray:
        """Returns the part of `rows` `[..., columns]` that this process loads."""
        each = rows.shape[-1] // jax.process_count()
        return rows[..., jax.process_index() * each :][..., :each]

    def replicate(self, tree: Tree, *, models: bool = False) -> Tree:
        """Returns `tree` (host or device arrays, the same in every process) on every device.

        Args:
          tree: what to place.
          models: whether it is one of models.
        """
        if self.kind == "shard_map":
            return self._place(tree, P(MODELS) if models else P(), self.mesh)
        many = lambda x: np.broadcast_to(x, (len(self.local), *np.shape(x)))  # noqa: E731
        return self._place(jax.tree.map(many, jax.device_get(tree)), P(AXIS), self.local_mesh)

    def shard(self, tree: Tree, axis: int, *, models: bool = False) -> Tree:
        """Returns `tree` split along `axis` of each leaf; each process gives its own part."""
        if self.kind == "shard_map":
            return self._place(tree, _spec(0 if models else None, axis), self.mesh)
        split = lambda x: np.stack(np.split(np.asarray(x), len(self.local), axis))  # noqa: E731
        return self._place(jax.tree.map(split, tree), P(AXIS), self.local_mesh)

    def _place(self, tree: Tree, spec: P, mesh: Mesh) -> Tree:
        place = functools.partial(jax.make_array_from_process_local_data, NamedSharding(mesh, spec))
        return jax.tree.map(lambda x: place(np.asarray(x)), tree)

    def fetch(self, tree: Tree) -> Tree:
        """Returns one copy of a replicated tree, or a tree of models, as NumPy arrays."""
        if self.groups > 1:
            return jax.device_get(tree)
        shards = jax.tree.map(lambda x: x.addressable_shards[0].data, tree)
        host = jax.device_get(shards)
        return host if self.kind == "shard_map" else jax.tree.map(lambda x: x[0], host)

    def compile(
        self,
        function: Callable[..., Tree],
        axes: Sequence[int | None],
        donate: Sequence[int] = (),
        models: Sequence[int | None] | None = None,
    ) -> Callable[..., Tree]:
        """Returns `function` over all devices.

        Args:
          function: per device; reduces over AXIS all that it returns.
          axes: for each argument, the axis that is split, or None where it is replicated.
          donate: arguments whose memory may be reused.
          models: of a function on the trees of one model, which is then one of S: for each argument
            0 where it has an axis of S, None where the models share it; what it returns has one.
        """
        out = P() if models is None else P(MODELS)
        if models is not None:
            function = over_seeds(function, self.seeds // self.groups, models)
        if self.kind == "pmap":
            return jax.pmap(function, AXIS, devices=self.devices, donate_argnums=tuple(donate))
        own = models or [None] * len(axes)
        specs = tuple(_spec(model, axis) for model, axis in zip(own, axes, strict=True))
        mapped = jax.shard_map(
            function, mesh=self.mesh, in_specs=specs, out_specs=out, check_vma=False
        )
        return jax.jit(mapped, donate_argnums=tuple(donate))


def _spec(models: int | None, axis: int | None) -> P:
    """Returns how a leaf is split: its first axis over groups of devices, another within them."""
    names: list[str | None] = [None] * max(
        0 if models is None else 1, 0 if axis is None else axis + 1
    )
    if models is not None:
        names[0] = MODELS
    if axis is not None:
        names[axis] = AXIS
    return P(*names)


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
