"""Optimizers and learning rates from `config.optim`."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import optax

from affectjax.runtime import configs

OPTIMIZERS = ("adam", "adamw")
SCHEDULES = ("constant", "cosine", "step")


class _Part:
    """A part of `config.optim`; the keys in `_from_0` are 0 or more."""

    _from_0: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self):
        for part in type(self).__mro__:
            configs.at_least(self, **dict.fromkeys(vars(part).get("_from_0", ()), 0))


@dataclasses.dataclass(frozen=True)
class Optimizer(_Part):
    """The keys that every run reads.

    Attributes:
      name: "adam" or "adamw".
      learning_rate: the peak.
      clip_norm: largest global norm of a gradient, 0 for no limit.
      schedule: "constant", "cosine" (to zero over the stage, or over a period) or "step".
      warmup_epochs: linear from zero, in epochs.
      plateau_patience: epochs without a better validation loss after which the rate is multiplied
        by `plateau_factor`, 0 for never.
      stop_rate: a stage ends once the rate that the plateau rule leaves is below this.
      average_decay: a step, of the running average of the parameters that is then what is
        validated, kept and tested; 0 for none. It starts at the initial parameters: use it for
        stages of several times 1 / (1 - average_decay) steps.
    """

    _from_0 = ("learning_rate", "clip_norm", "warmup_epochs", "plateau_patience", "stop_rate")
    name: str = "adam"
    learning_rate: float = 1e-3
    clip_norm: float = 1.0
    schedule: str = "constant"
    warmup_epochs: float = 0.0
    plateau_patience: int = 0
    stop_rate: float = 0.0
    average_decay: float = 0.0

    def __post_init__(self):
        for key, allowed in (("name", OPTIMIZERS), ("schedule", SCHEDULES)):
            if getattr(self, key) not in allowed:
                value = getattr(self, key)
                raise ValueError(f"{key} is {value!r}; allowed: {', '.join(allowed)}")
        super().__post_init__()
        if not 0 <= self.average_decay < 1:
            raise ValueError(f"average_decay is {self.average_decay}; allowed: from 0 to below 1")


@dataclasses.dataclass(frozen=True)
class AdamW(_Part):
    """AdamW, `name` "adamw".

    Attributes:
      weight_decay: decoupled.
    """

    _from_0 = ("weight_decay",)
    weight_decay: float = 0.0


@dataclasses.dataclass(frozen=True)
class Cosine(_Part):
    """The schedule "cosine".

    Attributes:
      period_epochs: after so many epochs the rate starts again at its peak; 0 for one period as
        long as the stage.
    """

    _from_0 = ("period_epochs",)
    period_epochs: float = 0.0


@dataclasses.dataclass(frozen=True)
class Step(_Part):
    """The schedule "step".

    Attributes:
      step_epochs: epochs at which the rate is multiplied by `step_factor`.
      step_factor: see there.
    """

    _from_0 = ("step_factor",)
    step_epochs: tuple[int, ...] = ()
    step_factor: float = 0.1


@dataclasses.dataclass(frozen=True)
class Plateau(_Part):
    """The plateau rule, `plateau_patience` above 0.

    Attributes:
      plateau_factor: by which the rate is multiplied.
    """

    _from_0 = ("plateau_factor",)
    plateau_factor: float = 0.1


@dataclasses.dataclass(frozen=True)
class OptimConfig(Plateau, Step, Cosine, AdamW, Optimizer):
    """`config.optim`; keys that the run does not read have their defaults, see `parts`."""

    def __post_init__(self):
        super().__post_init__()
        if self.period_epochs and self.schedule != "cosine":
            raise ValueError(f"period_epochs is {self.period_epochs}, but is of schedule cosine")
        if self.weight_decay and self.name == "adam":
            raise ValueError("weight_decay is for adamw; with adam it would not be read")


def parts(section: Mapping[str, Any]) -> tuple[tuple[type, ...], tuple[type, ...]]:
    """Returns the parts of `config.optim` that a run reads, and those that it does not.

    Args:
      section: its keys and values.
    """
    of = {
        AdamW: section.get("name") == "adamw",
        Cosine: section.get("schedule") == "cosine",
        Step: section.get("schedule") == "step",
        Plateau: bool(section.get("plateau_patience")),
    }
    used = tuple(part for part, reads in of.items() if reads)
    return (Optimizer, *used), tuple(part for part in of if part not in used)


def schedule(config: OptimConfig, epochs: int, steps: int) -> optax.Schedule:
    """Returns the learning rate at a step of a stage of `epochs` epochs of `steps` steps."""
    warmup = round(config.warmup_epochs * steps)
    if config.schedule == "cosine":
        period = round(config.period_epochs * steps) or max(epochs * steps - warmup, 1)
        once = optax.cosine_decay_schedule(config.learning_rate, period)
        after = (lambda step: once(step % period)) if config.period_epochs else once
    elif config.schedule == "step":
        drops = {epoch * steps - warmup: config.step_factor for epoch in config.step_epochs}
        after = optax.piecewise_constant_schedule(config.learning_rate, drops)
    else:
        after = optax.constant_schedule(config.learning_rate)
    if not warmup:
        return after
    rise = optax.linear_schedule(0.0, config.learning_rate, warmup)
    return optax.join_schedules([rise, after], [warmup])


def optimizer(config: OptimConfig) -> optax.GradientTransformation:
    """Returns clipping, then Adam with decoupled weight decay, at a learning rate of one.

    Its updates times the rate are added to the parameters. So the rate is a number that a compiled
    step is given, and another one compiles nothing anew.
    """
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity(),
        optax.scale_by_adam(),
        optax.add_decayed_weights(config.weight_decay) if config.weight_decay else optax.identity(),
        optax.scale(-1.0),
    )


def plateau(config: OptimConfig) -> optax.GradientTransformationExtraArgs:
    """Returns what turns a 1 into the factor of the learning rate, once an epoch.

    `update(1.0, state, value=validation_loss)` returns the factor and the new state.
    """
    if not config.plateau_patience:
        return optax.with_extra_args_support(optax.identity())
    # optax refuses two zero tolerances; this one is below the rounding of any loss that matters.
    return optax.contrib.reduce_on_plateau(
        factor=config.plateau_factor, patience=config.plateau_patience, rtol=0.0, atol=1e-12
    )
