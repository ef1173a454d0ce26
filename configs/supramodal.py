"""Supramodal concepts: learned from unpaired faces, sentences and voices, they guide a recogniser.

    python -m affectjax.main --config=configs/supramodal.py --workdir=runs/supramodal
    python -m affectjax.main --config=configs/supramodal.py:real --config.data.root=DATA \
        --workdir=runs/real
    python -m affectjax.main --config=configs/supramodal.py:paper --config.data.root=DATA \
        --config.model.learner.weights=CLIP --config.model.learner.clap_weights=CLAP \
        --config.data.sources.text.tokenizer=CLIP --workdir=runs/paper

Variants: synth (default): the embedded set's unpaired streams, then its faces. real: FER2013, MELD
and RAVDESS speech, in folders fer2013, meld_text and ravdess_speech of `data.root`, then FER2013.
mosi: the same sources, then CMU-MOSI in mosi_text_audio. paper: RAF-DB, CMU-MOSEI and RAVDESS with
the towers of CLIP and CLAP, then RAF-DB. Each also with one of these after a comma: joint or
sequential (that stage alone, for as many epochs as both), learn (no recogniser), downstream (that
alone, from `model.guided.bank`), text, audio or vision (a plain classifier of that size). One root
serves all data sets; a `dir` that is absolute leaves it.

Measured on two CPU cores, README has the commands: synth learns in 83 s (faces 43.0, sentences 75.5
of 3 classes, voices 49.2, new speakers), all stages take 4 min 47 s beside tests (guided ResNet-18
of 16 channels 28.4); real, one seed, in 8 minutes beside other work: PublicTest
53.4, MELD's dev 68.1 of 3 classes, RAVDESS actors 21 and 22 49.0, within two points of plain
classifiers of one modality. ResNet-18 on a tenth of FER2013: 50.2 guided, 48.8 not.

The paper's accuracies (its Tables 1 to 3; two RTX 4090, pretrained towers): RAF-DB 91.02, AffectNet
65.51, FED-RO 76.00; CMU-MOSI text 85.8, three modalities 87.4; two stages: image 91.59, text 75.42,
audio 60.97.
"""

from ml_collections import config_dict

from affectjax.data.batches.dataset import DataConfig
from affectjax.errors import InputError
from affectjax.modalities import MODALITIES
from affectjax.runtime.configs import section
from affectjax.runtime.optim import OptimConfig
from affectjax.runtime.parallel import ParallelConfig
from affectjax.tasks.supramodal.downstream import GuidedConfig
from affectjax.tasks.supramodal.stages import (
    ConceptsConfig,
    DownstreamStage,
    JointStage,
    SequentialStage,
)
from affectjax.tasks.supramodal.towers import LearnerConfig
from affectjax.training.loop import TrainConfig

VARIANTS = ("synth", "real", "mosi", "paper")
# Of the run: one stage for as many epochs as both, what learns the concepts, what uses them, or a
# plain classifier of one modality, of the same size.
PARTS = ("joint", "sequential", "learn", "downstream", *MODALITIES)


def get_config(arg: str = "synth") -> config_dict.ConfigDict:
    """Returns the config of a variant, as in "real" or "synth,joint"."""
    name, *options = (arg or "synth").split(",")
    if name not in VARIANTS or len(options) > 1 or not set(options) <= set(PARTS):
        raise InputError(
            f"configs/supramodal.py:{arg} is no variant; allowed: {', '.join(VARIANTS)}, each also "
            f"with one of {', '.join(',' + part for part in PARTS)}"
        )
    config = config_dict.ConfigDict()
    config.task = "supramodal"
    config.seed = 0
    config.seeds = ()
    root = config_dict.FieldReference("")
    config.data = _main(name)
    config.data.root = root
    sources = [m for m in MODALITIES if m in options] or MODALITIES
    config.data.sources = config_dict.ConfigDict({m: _source(name, m) for m in sources})
    for m in sources:
        config.data.sources[m].root = root
    config.model = config_dict.ConfigDict({"learner": _learner(name), "guided": _guided(name)})
    config.optim = _optim(name)
    config.stages = config_dict.ConfigDict(_stages(name, *options))
    config.train = section(TrainConfig)
    config.parallel = section(ParallelConfig)
    return config


def _main(name: str) -> config_dict.ConfigDict:
    """Returns `config.data`: what the recogniser learns."""
    seven = {"view": "clips", "class_map": "seven", "frames": 1}
    if name == "mosi":
        # The tested utterances are `valid` on disk.
        values = {"name": "mosi", "dir": "mosi_text_audio", "class_map": "two"}
        values |= {"valid": "holdout", "holdout": 0.2, "test": "valid"}
    elif name == "synth":
        values = seven | {"name": "affect_unpaired", "modalities": ("vision",)}
    elif name == "real":
        values = seven | {"name": "fer2013", "dir": "fer2013", "image_size": 48}
        # The test is PublicTest, which is `valid` on disk.
        values |= {"detector": "none", "valid": "holdout", "holdout": 0.1, "test": "valid"}
    else:
        values = seven | {"name": "rafdb", "dir": "rafdb", "detector": "none"}
        values |= {"valid": "holdout", "holdout": 0.1}
    return section(DataConfig, max_length=_empty(), sources=_empty(), **values)


def _source(name: str, m: str) -> config_dict.ConfigDict:
    """Returns the section of an unpaired data set."""
    three = "three" if m == "text" else "seven"
    values = {"view": "clips", "class_map": three, "modalities": (m,), "frames": 1}
    if name == "synth":
        values |= {"name": "affect_unpaired", "seconds": 1.5, "tokens": 24}
    elif name in ("real", "mosi"):
        values |= {
            "vision": {"name": "fer2013", "dir": "fer2013", "image_size": 48, "test": "valid"}
            | {"detector": "none", "valid": "holdout", "holdout": 0.1},
            "text": {"name": "meld", "dir": "meld_text", "tokens": 48, "test": "valid"}
            | {"valid": "holdout", "holdout": 0.1},
            "audio": {"name": "ravdess", "dir": "ravdess_speech", "seconds": 4.0}
            | {"valid": "holdout", "holdout": 0.1, "test": "valid"},
        }[m]
    else:
        values |= {
            "vision": {"name": "rafdb", "dir": "rafdb", "detector": "none"},
            "text": {"name": "mosei", "dir": "mosei", "view": "sequences", "words": True},
            "audio": {"name": "ravdess_all", "dir": "ravdess", "seconds": 10.0},
        }[m]
        if m == "vision":
            values |= {"valid": "holdout", "holdout": 0.1}
    return section(DataConfig, max_length=_empty(), sources=_empty(), **values)


def _empty() -> config_dict.ConfigDict:
    return config_dict.ConfigDict()


def _learner(name: str) -> config_dict.ConfigDict:
    if name == "paper":
        return section(LearnerConfig, statistics="shared")
    return section(
        LearnerConfig,
        vision="conv",
        audio="mel",
        width=256,
        dropout=0.3,
        flip=0.5,
        shift=0.08,
        contrast=0.2,
        brightness=0.1,
        gain_db=6.0,
    )


def _guided(name: str) -> config_dict.ConfigDict:
    if name == "mosi":
        return section(GuidedConfig, layers=2, dropout=0.3)
    if name == "paper":
        return section(GuidedConfig)
    changes = {"flip": 0.5, "shift": 0.08, "contrast": 0.2, "brightness": 0.1}
    return section(GuidedConfig, resnet_width=16 if name == "synth" else 64, **changes)


def _optim(name: str) -> config_dict.ConfigDict:
    if name == "paper":
        return section(
            OptimConfig,
            name="adamw",
            learning_rate=1e-4,
            weight_decay=1e-5,
            clip_norm=0.0,
            schedule="cosine",
            period_epochs=5.0,
        )
    return section(
        OptimConfig,
        name="adamw",
        learning_rate=1e-3,
        weight_decay=0.05,
        schedule="cosine",
        warmup_epochs=1.0,
    )


def _stages(name: str, part: str = "") -> dict[str, config_dict.ConfigDict]:
    """Returns `config.stages`: all of them, or those of a part of the run."""
    joint, sequential, downstream = {
        "synth": (4, 16, 30),
        "real": (4, 16, 8),
        "mosi": (4, 16, 10),
        "paper": (10, 100, 40),
    }[name]
    both = joint + sequential
    # The paper's orthogonality is of features as they are.
    sizes = {"batch_sizes": _empty(), "batch_size": 64, "unit_length": name != "paper"}
    if name in ("real", "mosi"):
        # So that an epoch takes each modality through its data about once.
        sizes["batch_sizes"] = config_dict.ConfigDict({"text": 64, "audio": 16, "vision": 128})
    stages = {
        "joint": section(JointStage, epochs=joint, select="last", **sizes),
        "sequential": section(SequentialStage, epochs=sequential, select="war", **sizes),
        "concepts": section(ConceptsConfig),
        "downstream": section(DownstreamStage, epochs=downstream, batch_size=64, select="war"),
    }
    if part == "joint":
        alone = section(JointStage, epochs=both, select="war", labels="both", **sizes)
        return {"joint": alone, "concepts": stages["concepts"]}
    if part == "sequential":
        alone = section(SequentialStage, epochs=both, select="war", **sizes)
        return {"sequential": alone, "concepts": stages["concepts"]}
    if part in MODALITIES:
        plain = {**sizes, "orthogonality": 0.0}
        return {"sequential": section(SequentialStage, epochs=both, select="war", **plain)}
    if part == "learn":
        stages.pop("downstream")
    return {"downstream": stages["downstream"]} if part == "downstream" else stages
