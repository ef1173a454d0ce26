"""Supramodal concepts: learned from unpaired images, texts and sounds, they guide a small model.

Stages: `joint` and `sequential` teach one emotion encoder from the unpaired data sets of
`config.data.sources`; `concepts` keeps its most confident features as a bank; `downstream` trains a
recogniser on `config.data` itself, guided by the bank or not. Each may be left out: a config with
`downstream` alone takes the bank of another run.

Source: SPEC section 3; the supramodal paper.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from affectjax.data.batches.inputs import Inputs
from affectjax.encoders.augmentation import FrameAugmentation
from affectjax.errors import InputError
from affectjax.modalities import MODALITIES
from affectjax.runtime import configs
from affectjax.runtime.optim import OptimConfig
from affectjax.tasks.base import LAST, MAIN, Model, Stage, StageConfig, StageEnd
from affectjax.tasks.supramodal import towers
from affectjax.tasks.supramodal.downstream import Downstream, GuidedConfig
from affectjax.tasks.supramodal.learner import Learner
from affectjax.tasks.supramodal.stages import (
    CONCEPTS,
    DOWNSTREAM,
    JOINT,
    ORDER,
    SEQUENTIAL,
    ConceptsConfig,
    DownstreamStage,
    JointStage,
    SequentialStage,
)

LEARNER, GUIDED = "learner", "guided"
GUIDED_PARTS = (GuidedConfig, FrameAugmentation)
STAGES = {
    JOINT: JointStage,
    SEQUENTIAL: SequentialStage,
    CONCEPTS: ConceptsConfig,
    DOWNSTREAM: DownstreamStage,
}


def _learns(config: Mapping[str, Any]) -> bool:
    return any(name in config["stages"] for name in (JOINT, SEQUENTIAL))


def sections(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the parts of the sections that it reads, see `affectjax.tasks.base.sections`."""
    configs.check_keys(config["stages"], ORDER, "config.stages")
    guided = (GUIDED,) if DOWNSTREAM in config["stages"] else ()
    read = (LEARNER, *guided) if _learns(config) else guided
    configs.check_keys(config["model"], read, "config.model")
    stages = {f"stages.{name}": ((STAGES[name],), ()) for name in config["stages"]}
    sources = config.get("data", {}).get("sources", ()) or MODALITIES
    learner = towers.choose(config["model"].get(LEARNER, {}), sources)
    return {
        f"model.{LEARNER}": (learner.parts, learner.others),
        f"model.{GUIDED}": (GUIDED_PARTS, ()),
        **stages,
    }


def data_sets(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the names of the data sets that a run reads; an InputError where it lacks sources."""
    sources = config["data"].get("sources", ()) if _learns(config) else ()
    if _learns(config) and not sources:
        raise InputError(
            f'"config.data.sources" is empty, but "config.stages" has {JOINT} or {SEQUENTIAL}; '
            "allowed: one data set or more to learn from"
        )
    main = (MAIN,) if DOWNSTREAM in config["stages"] else ()
    return (*main, *(m for m in MODALITIES if m in sources))


def evaluated_data_sets(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the names of the data sets that the last stage reads."""
    return (MAIN,) if DOWNSTREAM in config["stages"] else data_sets(config)


class Task:
    """Stages `joint`, `sequential` and `downstream`, those of them that the config has.

    Attributes: see `affectjax.tasks.base.Task`; of a run without `downstream` there is no scorer
    of `MAIN`.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        inputs: Inputs | None,
        axis_name: str | None,
        sources: Mapping[str, Inputs] | None = None,
    ):
        """Builds the models and the stages.

        Args:
          config: the whole config.
          inputs: what the batches of `config.data` hold, None where no stage reads them.
          axis_name: the mapped axis over which a batch is split, None where it is whole.
          sources: by name, what those of the unpaired data sets hold; none to predict again.

        Raises:
          InputError: a key that nobody reads, a value that is not allowed, or no such weights.
        """
        sections(config)  # refuses keys that nobody reads
        model, stages = configs.plain(config["model"]), configs.plain(config["stages"])
        self._read(stages, config)
        learner = model.get(LEARNER, {})
        guided, augmentation = configs.read(
            GUIDED_PARTS, model.get(GUIDED, {}), f"config.model.{GUIDED}"
        )
        self._check(guided, stages)
        self.guided = guided
        self.learner = None
        if sources:
            joint = self.sections.get(JOINT)
            self.learner = Learner(
                learner,
                sources,
                axis_name,
                trains_three=joint is not None,
                trains_seven=SEQUENTIAL in self.sections or joint.labels == "both",
            )
        self.downstream = None
        if inputs is not None:
            self.downstream = Downstream(guided, augmentation, inputs, axis_name)
        self.scorers = self.learner.scorers if self.learner else {}
        self._check_heads()
        if self.downstream is not None:
            self.spec, self.modalities = self.downstream.spec, self.downstream.modalities
            self.predict, self.metrics = self.downstream.predict, self.downstream.metrics
            self.metric_names, self.table = self.downstream.metric_names, self.downstream.table
        optim = configs.read(OptimConfig, config["optim"], "config.optim")
        self.stages = tuple(self._stages(optim))

    def _read(self, sections: Mapping[str, Any], config: Mapping[str, Any]) -> None:
        """Reads `config.stages`."""
        self.sections: dict[str, Any] = {
            name: configs.read(STAGES[name], sections[name], f"config.stages.{name}")
            for name in ORDER
            if name in sections
        }
        if not set(self.sections) - {CONCEPTS}:
            raise InputError(
                f'"config.stages" trains nothing; allowed: {", ".join(ORDER)}, one of them but '
                f"{CONCEPTS} at least"
            )
        if CONCEPTS in self.sections and not _learns(config):
            raise InputError(f'"config.stages.{CONCEPTS}" needs {JOINT} or {SEQUENTIAL} before it')

    def _check(self, guided: GuidedConfig, sections: Mapping[str, Any]) -> None:
        """Raises InputError where the recogniser has no concepts, or two banks of them."""
        own = CONCEPTS in sections
        if DOWNSTREAM in sections and guided.guide and own == bool(guided.bank):
            said = "makes a bank of its own" if own else "makes no bank"
            raise InputError(
                f'"config.model.{GUIDED}.bank" is {guided.bank!r}, but the run {said}; allowed: '
                f"the stage {CONCEPTS}, or the folder of a bank, or guide=False"
            )

    def _check_heads(self) -> None:
        """Raises InputError where a head that nothing trains would choose epochs or concepts."""
        joint = self.sections.get(JOINT)
        if self.learner is None or joint is None or SEQUENTIAL in self.sections:
            return
        trained = joint.select == LAST or "three/" in joint.select
        asked = CONCEPTS in self.sections or not trained
        if joint.labels == "merged" and asked and "seven" in self.learner.heads.values():
            raise InputError(
                f'"config.stages.{JOINT}.labels" is "merged", so nothing trains the seven emotions '
                f"that {CONCEPTS} and select go by; allowed: both, or a stage {SEQUENTIAL} after it"
            )

    def _stages(self, optim: OptimConfig) -> list[Stage]:
        stages, learner = [], self.learner
        if learner is not None:
            for name, loss in ((JOINT, learner.joint), (SEQUENTIAL, learner.sequential)):
                if name in self.sections:
                    own = self.sections[name]
                    stages.append(
                        Stage(
                            name=name,
                            rules=own.rules(batch_size=own.sizes(learner.names)),
                            optim=_rate(own, optim),
                            loss=functools.partial(loss, own),
                            init=learner.init,
                            prepare=learner.load_pretrained,
                            turns=own.turns(learner.names),
                            trains=learner.trains,
                        )
                    )
            stages[-1] = dataclasses.replace(stages[-1], on_end=self._end_learning)
        if DOWNSTREAM in self.sections and self.downstream is not None:
            own = self.sections[DOWNSTREAM]
            stages.append(
                Stage(
                    name=DOWNSTREAM,
                    rules=own.rules(),
                    optim=_rate(own, optim),
                    loss=self.downstream.loss,
                    init=self.downstream.init,
                    prepare=self.downstream.load_pretrained,
                    trains=self.downstream.trains,
                )
            )
        return stages

    def _end_learning(self, model: Model, end: StageEnd) -> Model:
        """Leaves the concepts; returns a new recogniser, or what was learned if none follows."""
        if CONCEPTS in self.sections:
            self.learner.write_concepts(self.sections[CONCEPTS], end)
        return model if self.downstream is None else self._new_recogniser(end)

    def _new_recogniser(self, end: StageEnd) -> Model:
        """Returns a new recogniser, with the concepts that the learner left."""
        batch = self.downstream.inputs.zeros(2)
        key = jax.random.fold_in(jax.random.key(end.seed), len(self.stages))
        params, variables = jax.device_get(jax.jit(self.downstream.init)(key, batch))
        new = {"params": params, "variables": variables}
        if CONCEPTS not in self.sections:
            return self.downstream.load_pretrained(new)
        return self.downstream.load_pretrained(new, end.folder / CONCEPTS, self._capacity(end))

    def _capacity(self, end: StageEnd) -> dict[str, int]:
        """Returns by modality how many concepts a bank may hold, whichever were predicted well."""
        how, found = self.sections[CONCEPTS], {}
        for m in self.learner.names:
            _, _, label = end.run(self.learner.scorers[m].describe, m, "train")
            top = how.top if how.selective else 1.0
            # No fewer than `concepts.select` keeps, however its product is rounded.
            found[m] = int(sum(max(1, np.ceil(top * n)) for n in np.bincount(label)))
        return found


def _rate(own: StageConfig, optim: OptimConfig) -> OptimConfig:
    """Returns the optimizer's config with the learning rate of the stage, where it has one."""
    return dataclasses.replace(optim, learning_rate=own.learning_rate or optim.learning_rate)
