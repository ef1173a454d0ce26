"""UMBEnet on clips: affect_synth, DFEW, FERV39k, MAFW, RAVDESS, FER2013, CMU-MOSI or one's own.

    python -m affectjax.main --config=configs/umbenet.py --workdir=runs/umbenet
    python -m affectjax.main --config=configs/umbenet.py:clips --config.data.dir=CSV --workdir=W
    python -m affectjax.main --config=configs/umbenet.py:dfew --config.data.dir=DFEW \
        --config.model.weights=CLIP --config.data.folds="('1','2','3','4','5')" --workdir=runs/dfew

    python -m affectjax.main --config=configs/umbenet.py:dfew,lora --config.data.dir=DFEW \
        --config.model.weights=CLIP --config.model.clap_weights=CLAP --workdir=runs/dfew_lora

Variants: synth (default), dfew, ferv39k, mafw, clips, ravdess, fer2013, mosi; each also `,single`,
the single-stage run of the ablation. ravdess and fer2013 have one modality, and one stage anyway.
dfew, ferv39k and mafw also `,lora`: frames through CLIP's tower and sound through CLAP's HTSAT, of
both of which LoRA alone trains. `model.weights` is a folder with CLIP's weights in Hugging Face's
layout, or the name of one on its hub, which dfew, ferv39k and mafw need; the others train small
towers from scratch.

From scratch, class features are taken around their mean and each modality has a linear map of its
own beside the cosines (`center_classes`, `evidence`). `synth` and `clips` hear by a log-mel tower
(`audio="mel"`), hide a quarter of a text's tokens and learn every subset of the modalities at every
step (`subset_loss`); `ravdess` and `fer2013` hear and see by residual towers. The paper's variants
have none of it.

Measured on two CPU cores (docs/results.md): synth, WAR 80.5 ± 0.7 on new speakers, seeds 0 to 2;
RAVDESS voices of actors 21 and 22, 8 classes, UAR 64.8; FER2013 faces, WAR 64.2; text + audio of
CMU-MOSI as two classes, WAR 72.1, text alone 77.9 (before `evidence`).

Learning rate, batch size, plateau and stop rules of dfew, ferv39k and mafw are those of section 4.1
of Mai et al. 2024, who ran ViT-L/14 on two GPUs. The paper's WAR, video and audio: DFEW 74.83, MAFW
57.25; video alone: DFEW 73.93, FERV39k 52.10, MAFW 55.04.

Frozen CLIP and CLAP with LoRA and 8 million trained parameters reach WAR 80.14 on DFEW and 61.18 on
MAFW in Chen et al. 2025, "CLAIP-Emo", arXiv 2509.14527. `,lora` brings that idea to UMBEnet; the
rank, alpha, targets, learning rate and the one layer over frames are ours, and nobody has run it on
these sets yet. What trains and its memory: docs/results.md.
"""

from typing import Any

from ml_collections import config_dict

from affectjax.errors import InputError
from affectjax.runtime import config_files

PAPER = ("dfew", "ferv39k", "mafw")
# name of the data set: batch, epochs of stage 1 (0 for one stage alone), epochs of stage 2
LENGTHS = {
    "synth": (32, 8, 24),
    "dfew": (16, 20, 60),
    "ferv39k": (16, 20, 60),
    "mafw": (16, 20, 60),
    "clips": (32, 20, 20),
    "ravdess": (32, 0, 40),
    "fer2013": (128, 0, 36),
    "mosi": (32, 6, 8),
}


# What raw files of faces and films add to `config.data`.
FILES = {"image_size": 224, "detector": "cascade"}
# What `,lora` changes of `config.model`: the text tower makes the class prompts, as CLIP has it.
LORA = {
    "audio": "clap",
    "clap_weights": "",
    "frozen": ("text_tower",),
    "lora_rank": 8,
    "lora_alpha": 16.0,
    "lora_dropout": 0.1,
    "lora_targets": "all",
    "temporal_layers": 1,
}
# The modalities that the clips of a set have, where it is not all three.
HAVE = {"dfew": ("audio", "vision"), "ferv39k": ("audio", "vision"), "fer2013": ("vision",)}


def get_config(arg: str = "synth") -> config_dict.ConfigDict:
    """Returns the config of a variant, as in "dfew" or "synth,single"."""
    name, options = config_files.variant("configs/umbenet.py", arg, LENGTHS, ("single", "lora"))
    if "lora" in options and name not in PAPER:
        raise InputError(
            f"configs/umbenet.py:{arg} is no variant; allowed with ',lora': {', '.join(PAPER)}"
        )
    stages = {"unimodal": _unimodal(name), "missing": _missing(name)}
    if not stages["unimodal"]["epochs"]:
        del stages["unimodal"]
    elif "single" in options:
        stages["missing"]["epochs"] += stages.pop("unimodal")["epochs"]
    model, optim = _model(name), _optim(name)
    if "lora" in options:
        model, optim = model | LORA, optim | {"learning_rate": 5e-4}
    config = config_files.run("umbenet", data=_data(name), model=model, optim=optim, stages=stages)
    if "tokens" in config.data:
        # One folder gives the towers and the words that they know.
        folder = config_dict.FieldReference("")
        config.model.weights = folder
        config.data.tokenizer = folder
    return config


def _data(name: str) -> dict[str, Any]:
    """Returns `config.data`: clips, but for MOSI, whose features are published."""
    values = {**config_files.DATA, "name": "affect_synth" if name == "synth" else name}
    if name == "mosi":
        return values | {"view": "sequences", "threshold": 0.0, "standardize": ("audio", "vision")}
    values |= {"view": "clips", "frames": 16, "sampling": "middle"}
    have = HAVE.get(name, ("text", "audio", "vision"))
    if "text" in have:
        values |= {"tokens": 77, "tokenizer": ""}
    if "audio" in have:
        values |= {"seconds": 5.0}
    if name == "synth":
        return values | {"tokens": 24, "seconds": 1.5}
    values |= FILES
    if name in PAPER:
        values |= {"sampling": "random", "valid": "holdout", "holdout": 0.1, "folds": ()}
        # DFEW and FERV39k come as face crops.
        values |= {"detector": "cascade" if name == "mafw" else "none"}
        if name == "mafw":
            values |= {"without": ("neutral",)}
    elif name == "ravdess":
        values |= {"tokens": 16, "seconds": 4.0}
        values |= {"valid": "holdout", "holdout": 0.1, "test": "valid"}
    elif name == "fer2013":
        values |= {"frames": 1, "image_size": 48, "detector": "none", "test": "valid"}
        values |= {"valid": "holdout", "holdout": 0.05}
    return values


# What `config.model` has of one modality that a residual tower learns from scratch. The class
# prompts are short: their tower would take longer than the one that sees or hears.
RESIDUAL = {
    "text_width": 64,
    "text_layers": 1,
    "prompt_tokens": 4,
    "inherent_tokens": 4,
    "temporal_layers": 0,
}
FACES = {
    "vision": "resnet",
    "image_channels": (32, 64, 128, 256),
    "flip": 0.5,
    "shift": 0.12,
    "rotate": 12.0,
    "zoom": 0.15,
    "erase": 0.25,
    "mirror": True,
}
VOICES = {
    "modalities": ("audio",),
    "audio": "resnet",
    "audio_steps": 256,
    "dropout": 0.3,
    "shift_bands": 3,
    "hole_steps": 0.15,
    "hole_bands": 0.15,
    "speed": 0.15,
}


def _model(name: str) -> dict[str, Any]:
    """Returns `config.model`: small towers from scratch; the paper's sets add augmentation."""
    values = {
        "modalities": (),
        "weights": "",
        "text": "clip",
        "audio": "conv",
        "vision": "clip",
        "fusion_layers": 1,
        "pool_size": 32,
        "top_k": 5,
        "prompt_tokens": 32,
        "inherent_tokens": 32,
        "query_map": "identity",
        "pull": 0.1,
        "l1": 1e-4,
        "dropout": 0.0,
    }
    if name in PAPER:
        frozen = {"frozen": ("text_tower", "image_tower"), "logit_scale": 100.0}
        return values | frozen | {"temporal_layers": 12, "flip": 0.5, "shift": 0.05}
    values |= {
        "width": 128,
        "text_width": 128,
        "heads": 4,
        "prompt_tokens": 8,
        "inherent_tokens": 8,
        "logit_scale": 14.0,
        "dropout": 0.2,
        # Adam moves W1 as fast for a small L1 term as for a large one: with SPEC's 1e-4 these
        # small gates are zero within two epochs.
        "l1": 1e-6,
        # Without weights all classes have nearly one feature at first, see results.md.
        "center_classes": True,
        "evidence": True,
    }
    if name == "mosi":
        return values | dict.fromkeys(("text", "audio", "vision"), "features")
    values |= {"audio": "mel", "vision": "conv", "temporal_heads": 4}
    if name == "fer2013":
        return values | RESIDUAL | FACES
    if name == "ravdess":
        return values | RESIDUAL | VOICES
    values |= {"temporal_layers": 1, "flip": 0.5, "gain_db": 6.0, "shift_bands": 6}
    return values | {"token_drop": 0.25, "moments": 4 if name == "synth" else 0}


def _optim(name: str) -> dict[str, Any]:
    if name in PAPER:
        return {
            "name": "adam",
            "learning_rate": 2e-3,
            "clip_norm": 1.0,
            "schedule": "constant",
            "plateau_patience": 3,
            "plateau_factor": 0.6,
            "stop_rate": 1e-7,
        }
    values = {
        "name": "adamw",
        "learning_rate": 1e-3,
        "clip_norm": 1.0,
        "weight_decay": 0.2 if name == "mosi" else 0.5,
        "schedule": "cosine",
        "warmup_epochs": 1.0,
        "average_decay": 0.98,
    }
    if name == "fer2013":
        return values | {"learning_rate": 2e-3, "weight_decay": 0.05, "average_decay": 0.998}
    if name == "ravdess":
        return values | {"learning_rate": 2e-3, "weight_decay": 0.05, "warmup_epochs": 5.0}
    return values


def _unimodal(name: str) -> dict[str, Any]:
    """Returns stage 1: its last epoch counts, for the prompts that it leaves activated."""
    size, epochs, _ = LENGTHS[name]
    return {
        "epochs": epochs,
        "batch_size": size,
        "select": "last",
        "shows": "one",
        "usage_penalty": 1.0,
        "transfer_threshold": 0.5,
    }


def _missing(name: str) -> dict[str, Any]:
    size, _, epochs = LENGTHS[name]
    more = {"stop_accuracy": 0.8} if name in PAPER else {}
    if name in ("synth", "clips"):
        more = {"subset_loss": 1.0}
    # From scratch the last epoch is the best, and the held out part only shows how it goes.
    scratch = name in ("ravdess", "fer2013")
    more |= {"label_smoothing": 0.1} if scratch else {}
    return {
        "epochs": epochs,
        "batch_size": size,
        "select": "last" if scratch else "loss",
        "shows": "subset",
        "patience": 0,
        **more,
    }
