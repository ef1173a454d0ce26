"""LoRA on encoders with pretrained weights: its config keys, and what they do to several towers.

The base of an adapted tower is frozen: only what LoRA adds to its kernels trains.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax

from affectjax.encoders import Choice
from affectjax.weights import lora

Tree = Any
# By `lora_targets`, the kernels that are adapted.
TARGETS = {"attention": lora.ATTENTION, "all": lora.EVERY_PROJECTION}


@dataclasses.dataclass(frozen=True)
class Rank:
    """How much trains in encoders with weights.

    Attributes:
      lora_rank: of LoRA on their kernels; the rest of them is frozen. 0 for no LoRA.
    """

    lora_rank: int = 6


@dataclasses.dataclass(frozen=True)
class Adaptation(Rank):
    """What LoRA trains in encoders with weights.

    Attributes:
      lora_alpha, lora_dropout: see `affectjax.weights.lora.Lora`.
      lora_targets: "attention", the projections of attention, or "all", the feed-forward ones too.
    """

    lora_alpha: float = 36.0
    lora_dropout: float = 0.2
    lora_targets: str = "attention"

    # The name of what is added among the parameters of a model.
    name: ClassVar[str] = "lora"

    def __post_init__(self):
        if self.lora_targets not in TARGETS:
            raise ValueError(
                f"lora_targets is {self.lora_targets!r}; allowed: {', '.join(TARGETS)}"
            )
        if self.lora_rank < 0:
            raise ValueError(f"lora_rank is {self.lora_rank}; allowed: 0 or more")
        _ = self._settings  # raises InputError for what cannot be meant

    @property
    def _settings(self) -> lora.Lora:
        return lora.Lora(self.lora_rank, self.lora_alpha, self.lora_dropout)

    def init(self, key: jax.Array, towers: Mapping[str, Tree]) -> dict[str, Tree]:
        """Returns what trains of each tower by name, see `affectjax.weights.lora.init`."""
        keys = jax.random.split(key, len(towers))
        return {
            name: lora.init(own, tower, self.lora_rank, TARGETS[self.lora_targets])
            for (name, tower), own in zip(towers.items(), keys, strict=True)
        }

    def adapt(
        self,
        towers: Mapping[str, Tree],
        added: Mapping[str, Tree],
        key: jax.Array | None = None,
    ) -> dict[str, Tree]:
        """Returns the parameters of each tower with those of LoRA added to its kernels.

        Args:
          towers: by name.
          added: by name, as `init` returns it.
          key: of a training step, the same on every device; None in evaluation, and to merge.
        """
        found = {}
        for number, (name, tower) in enumerate(towers.items()):
            own = None if key is None else jax.random.fold_in(key, number)
            found[name] = lora.adapt(tower, added[name], self._settings, own)
        return found


def extend(choice: Choice, rank: type[Rank] = Rank) -> Choice:
    """Returns a choice of encoders whose parts have the keys of LoRA, where a folder is named.

    Of a `lora_rank` of 0 the other keys of LoRA are not read.

    Args:
      choice: of encoders; it is changed.
      rank: the part of the section that has the default of `lora_rank`.
    """
    keys = [getattr(part, "weights_key", "") for part in choice.parts]
    weights = any(choice.section.get(key) for key in keys if key)
    used: tuple[type, ...] = ()
    if weights:
        used = (Adaptation,) if choice.section.get("lora_rank", rank.lora_rank) else (rank,)
    choice.parts += used
    choice.others += tuple(part for part in (Adaptation, rank) if part not in used)
    return choice
