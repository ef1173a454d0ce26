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

Measured on two CPU cores (docs/results.md): synth learns in 83 s (faces 43.0, sentences 75.5
of 3 classes, voices 49.2, new speakers), all stages take 4 min 47 s beside tests (guided ResNet-18
of 16 channels 28.4); real, one seed, in 8 minutes beside other work: PublicTest
53.4, MELD's dev 68.1 of 3 classes, RAVDESS actors 21 and 22 49.0, within two points of plain
classifiers of one modality. ResNet-18 on a tenth of FER2013: 50.2 guided, 48.8 not.

The paper's accuracies (its Tables 1 to 3; two RTX 4090, pretrained towers): RAF-DB 91.02, AffectNet
65.51, FED-RO 76.00; CMU-MOSI text 85.8, three modalities 87.4; two stages: image 91.59, text 75.42,
audio 60.97.
"""

from typing import Any

from ml_collections import config_dict

from affectjax.modalities import MODALITIES
from affectjax.runtime import config_files

VARIANTS = ("synth", "real", "mosi", "paper")
# Of the run: one stage for as many epochs as both, what learns the concepts, what uses them, or a
# plain classifier of one modality, of the same size.
PARTS = ("joint", "sequential", "learn", "downstream", *MODALITIES)


# `config.data` of faces: one image an example.
FACES = {"view": "clips", "class_map": "seven", "frames": 1, "sampling": "middle"}
# Frames of raw files, as the sets with small grey faces have them.
SMALL_CROPS = {"image_size": 48, "detector": "none"}
HELD_OUT = {"valid": "holdout", "holdout": 0.1}


def get_config(arg: str = "synth") -> config_dict.ConfigDict:
    """Returns the config of a variant, as in "real" or "synth,joint"."""
    name, options = config_files.variant("configs/supramodal.py", arg, VARIANTS, PARTS, most=1)
    stages = _stages(name, *options)
    learns = "joint" in stages or "sequential" in stages
    data: dict[str, Any] = {"root": ""}
    model = {}
    if learns:
        sources = [m for m in MODALITIES if m in options] or MODALITIES
        data["sources"] = {m: _source(name, m, main="downstream" in stages) for m in sources}
        model["learner"] = _learner(name, tuple(sources))
    if "downstream" in stages:
        data = config_files.DATA | data | _main(name)
        model["guided"] = _guided(name)
    return config_files.run("supramodal", data=data, model=model, optim=_optim(name), stages=stages)


def _main(name: str) -> dict[str, Any]:
    """Returns `config.data`: what the recogniser learns."""
    if name == "mosi":
        # The tested utterances are `valid` on disk.
        return {
            "name": "mosi",
            "dir": "mosi_text_audio",
            "view": "sequences",
            "class_map": "two",
            "valid": "holdout",
            "holdout": 0.2,
            "test": "valid",
        }
    if name == "synth":
        return FACES | {"name": "affect_unpaired", "modalities": ("vision",)}
    if name == "real":
        # The test is PublicTest, which is `valid` on disk.
        return (
            FACES | SMALL_CROPS | HELD_OUT | {"name": "fer2013", "dir": "fer2013", "test": "valid"}
        )
    files = {"image_size": 224, "detector": "none"}
    return FACES | files | HELD_OUT | {"name": "rafdb", "dir": "rafdb"}


def _source(name: str, m: str, *, main: bool) -> dict[str, Any]:
    """Returns the section of an unpaired data set.

    Args:
      name: of the variant.
      m: the modality.
      main: whether there is a main data set. A source that reads the same files has its splits.
    """
    values = {"view": "clips", "class_map": "three" if m == "text" else "seven"}
    if m == "vision":
        values |= {"frames": 1}
    if name == "synth":
        own = {"vision": {}, "text": {"tokens": 24, "tokenizer": ""}, "audio": {"seconds": 1.5}}[m]
        return values | {"name": "affect_unpaired"} | own
    if name in ("real", "mosi"):
        own = {
            "vision": {"name": "fer2013", "dir": "fer2013", **SMALL_CROPS},
            "text": {"name": "meld", "dir": "meld_text", "tokens": 48, "tokenizer": ""},
            "audio": {"name": "ravdess", "dir": "ravdess_speech", "seconds": 4.0},
        }[m]
        splits = HELD_OUT | {"test": "valid"}
        return values | own | ({} if main and name == "real" and m == "vision" else splits)
    if m == "vision":
        files = {"name": "rafdb", "dir": "rafdb", "image_size": 224, "detector": "none"}
        return values | files | ({} if main else HELD_OUT)
    if m == "text":
        words = {"view": "sequences", "words": True, "tokens": 77, "tokenizer": ""}
        return values | words | {"name": "mosei", "dir": "mosei"}
    return values | {"name": "ravdess_all", "dir": "ravdess", "seconds": 10.0}


def _learner(name: str, modalities: tuple[str, ...]) -> dict[str, Any]:
    """Returns `config.model.learner`: a tower a modality, of the paper or small ones."""
    towers, values = {"text": "clip", "audio": "clap", "vision": "clip"}, {"hidden": 256}
    if name == "paper":
        values |= {"width": 512, "statistics": "shared"}
    else:
        towers |= {"audio": "mel", "vision": "conv"}
        values |= {"width": 256, "statistics": "modality", "dropout": 0.3}
    weights = {"clip": {"weights": ""}, "clap": {"clap_weights": ""}}
    small = {
        "conv": {"flip": 0.5, "shift": 0.08, "contrast": 0.2, "brightness": 0.1},
        "mel": {"gain_db": 6.0},
    }
    for m in modalities:
        values |= {m: towers[m], **(weights | small).get(towers[m], {})}
    return values


def _guided(name: str) -> dict[str, Any]:
    """Returns `config.model.guided`: the recogniser, and how concepts guide it."""
    values = {
        "modalities": (),
        "guide": True,
        "bank": "",
        "concepts": (),
        "count": 8,
        "generalize": True,
        "weight": 0.5,
    }
    if name == "mosi":
        return values | {"heads": 8, "layers": 2, "dropout": 0.3}
    if name == "paper":
        return values | {"weights": "", "resnet_width": 64}
    changes = {"flip": 0.5, "shift": 0.08, "contrast": 0.2, "brightness": 0.1}
    return values | {"weights": "", "resnet_width": 16 if name == "synth" else 64} | changes


def _optim(name: str) -> dict[str, Any]:
    values = {"name": "adamw", "schedule": "cosine"}
    if name == "paper":
        paper = {"learning_rate": 1e-4, "weight_decay": 1e-5, "clip_norm": 0.0}
        return values | paper | {"period_epochs": 5.0}
    return values | {"learning_rate": 1e-3, "weight_decay": 0.05, "warmup_epochs": 1.0}


def _stages(name: str, part: str = "") -> dict[str, dict[str, Any]]:
    """Returns `config.stages`: all of them, or those of a part of the run."""
    joint, sequential, downstream = {
        "synth": (4, 16, 30),
        "real": (4, 16, 8),
        "mosi": (4, 16, 10),
        "paper": (10, 100, 40),
    }[name]
    both = joint + sequential
    # The paper's orthogonality is of features as they are.
    common = {"batch_sizes": {}, "batch_size": 64, "unit_length": name != "paper"}
    if name in ("real", "mosi"):
        # So that an epoch takes each modality through its data about once.
        common["batch_sizes"] = {"text": 64, "audio": 16, "vision": 128}
    weights = {"contrast": 0.05, "orthogonality": 0.1, "margin": 0.2, "contrast_seven": False}
    turns = {"orthogonality": 0.1, "cycle": 1, "unit": "epochs", "select": "war"}
    stages = {
        "joint": {**common, **weights, "labels": "merged", "epochs": joint, "select": "last"},
        "sequential": {**common, **turns, "epochs": sequential},
        "concepts": {"top": 0.2, "selective": True},
        "downstream": {"epochs": downstream, "batch_size": 64, "select": "war"},
    }
    if part == "joint":
        stages["joint"] |= {"epochs": both, "select": "war", "labels": "both"}
        return {key: stages[key] for key in ("joint", "concepts")}
    if part == "sequential":
        stages["sequential"] |= {"epochs": both}
        return {key: stages[key] for key in ("sequential", "concepts")}
    if part in MODALITIES:
        return {"sequential": stages["sequential"] | {"epochs": both, "orthogonality": 0.0}}
    if part == "learn":
        stages.pop("downstream")
    return {"downstream": stages["downstream"]} if part == "downstream" else stages
