"""`config.stages` of supramodal learning.

Source: SPEC section 3, stages; the supramodal paper, sections 3.1 and 4.1.
"""

import dataclasses
from collections.abc import Mapping

from affectjax.data.batches.unpaired import LENGTHS, UNITS, Turns
from affectjax.modalities import MODALITIES
from affectjax.runtime import configs
from affectjax.tasks.base import StageConfig

JOINT, SEQUENTIAL, CONCEPTS, DOWNSTREAM = "joint", "sequential", "concepts", "downstream"
ORDER = (JOINT, SEQUENTIAL, CONCEPTS, DOWNSTREAM)
LABELS = ("merged", "both")


@dataclasses.dataclass(frozen=True)
class UnpairedStage(StageConfig):
    """What the stages on unpaired data sets have in common.

    Attributes:
      batch_sizes: by modality, in place of `batch_size`.
      learning_rate: in place of that of `config.optim`; 0 for that one.
      length: see `affectjax.data.batches.unpaired.Turns`.
      normalize: see `affectjax.ops.contrast.orthogonality`.
      unit_length: whether features are brought to length one before their orthogonality is
        measured. Of 256 features as they are, its 65 536 products outweigh all other terms a
        thousand times at first; False is the paper's form.
    """

    batch_sizes: Mapping[str, int] | tuple = ()
    learning_rate: float = 0.0
    length: str = "each"
    normalize: bool = True
    unit_length: bool = True

    def __post_init__(self):
        super().__post_init__()
        configs.at_least(self, learning_rate=0)
        for m, size in dict(self.batch_sizes).items():
            if m not in MODALITIES or not isinstance(size, int) or size < 1:
                raise ValueError(
                    f"batch_sizes has {m}: {size!r}; allowed: whole numbers from 1, of "
                    f"{', '.join(MODALITIES)}"
                )
        if self.length not in LENGTHS:
            raise ValueError(f"length is {self.length!r}; allowed: {', '.join(LENGTHS)}")

    def sizes(self, names: tuple[str, ...]) -> dict[str, int]:
        """Returns the batch size of each of `names`."""
        return dict.fromkeys(names, self.batch_size) | dict(self.batch_sizes)


@dataclasses.dataclass(frozen=True)
class JointStage(UnpairedStage):
    """`config.stages.joint`: all modalities in every step.

    Attributes:
      contrast: beta1, weight of the triplet loss.
      orthogonality: beta2, weight of the orthogonality loss.
      margin: alpha of the triplet loss.
      labels: "merged": all modalities learn negative, neutral and positive; "both": those that
        have seven emotions learn these as well.
      select: as in `StageConfig`; with merged labels "loss" and "war" are of heads that learn
        nothing, so the last epoch counts unless the config says otherwise ("three/war").
      contrast_seven: whether triplets of the seven emotions join those of the merged labels, for
        those modalities that have them (appendix C of the paper).
    """

    select: str = "last"
    contrast: float = 0.05
    orthogonality: float = 0.1
    margin: float = 0.2
    labels: str = "merged"
    contrast_seven: bool = False

    def __post_init__(self):
        super().__post_init__()
        configs.at_least(self, contrast=0, orthogonality=0, margin=0)
        if self.labels not in LABELS:
            raise ValueError(f"labels is {self.labels!r}; allowed: {', '.join(LABELS)}")

    def turns(self, names: tuple[str, ...]) -> Turns:
        """Returns how the data sets `names` share the steps."""
        return Turns(names, together=True, length=self.length)


@dataclasses.dataclass(frozen=True)
class SequentialStage(UnpairedStage):
    """`config.stages.sequential`: one modality at a time, with its own labels.

    One optimizer serves all: what is not in turn gets no gradient, but is decayed and moved by its
    momentum. Epochs that are no multiple of a cycle end it before all have had their turn.

    Attributes:
      orthogonality: gamma, weight of the orthogonality loss.
      cycle, unit: how long a modality's turn lasts, see `affectjax.data.batches.unpaired.Turns`.
      order: of the turns.
    """

    orthogonality: float = 0.1
    cycle: int = 1
    unit: str = "epochs"
    order: tuple[str, ...] = ("vision", "text", "audio")

    def __post_init__(self):
        super().__post_init__()
        configs.at_least(self, orthogonality=0)
        if self.unit not in UNITS or self.cycle < 1:
            raise ValueError(
                f"cycle is {self.cycle} {self.unit!r}; allowed: 1 or more {', '.join(UNITS)}"
            )
        if sorted(self.order) != sorted(MODALITIES):
            raise ValueError(f"order is {self.order!r}; allowed: {', '.join(MODALITIES)} once each")

    def turns(self, names: tuple[str, ...]) -> Turns:
        """Returns how the data sets `names` share the steps."""
        ordered = tuple(m for m in self.order if m in names)
        return Turns(ordered, cycle=self.cycle, unit=self.unit, length=self.length)


@dataclasses.dataclass(frozen=True)
class ConceptsConfig:
    """`config.stages.concepts`: what of the training examples goes into the bank.

    Attributes:
      top: share of the correctly predicted examples of a class, the most confident first.
      selective: False keeps every example, the ablation without selectivity.
    """

    top: float = 0.2
    selective: bool = True

    def __post_init__(self):
        if not 0 < self.top <= 1:
            raise ValueError(f"top is {self.top}; allowed: above 0 to 1")


@dataclasses.dataclass(frozen=True)
class DownstreamStage(StageConfig):
    """`config.stages.downstream`: a small recogniser, guided or not.

    Attributes:
      learning_rate: in place of that of `config.optim`; 0 for that one.
    """

    learning_rate: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        configs.at_least(self, learning_rate=0)
