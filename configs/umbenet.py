"""UMBEnet on clips: affect_synth, DFEW, FERV39k, MAFW, RAVDESS, FER2013, CMU-MOSI or one's own.

    python -m affectjax.main --config=configs/umbenet.py --workdir=runs/umbenet
    python -m affectjax.main --config=configs/umbenet.py:clips --config.data.dir=CSV --workdir=W
    python -m affectjax.main --config=configs/umbenet.py:dfew --config.data.dir=DFEW \
        --config.model.weights=CLIP --config.data.folds="('1','2','3','4','5')" --workdir=runs/dfew

Variants: synth (default), dfew, ferv39k, mafw, clips, ravdess, fer2013, mosi; each also `,single`,
the single-stage run of the ablation. `model.weights` is a local folder with CLIP's weights in
Hugging Face's layout, which dfew, ferv39k and mafw need; the others train small towers from
scratch.

Measured on two CPU cores, README has the commands: synth, WAR 67.8 on new speakers (68.4 and
67.2, two seeds); text + audio of CMU-MOSI as two classes, WAR 72.1, text alone 77.9; FER2013
faces, WAR 50.7.

Learning rate, batch size, plateau and stop rules of dfew, ferv39k and mafw are those of section 4.1
of Mai et al. 2024, who ran ViT-L/14 on two GPUs. The paper's WAR, video and audio: DFEW 74.83, MAFW
57.25; video alone: DFEW 73.93, FERV39k 52.10, MAFW 55.04.
"""

from ml_collections import config_dict

from affectjax.data.batches.dataset import DataConfig
from affectjax.errors import InputError
from affectjax.runtime.configs import section
from affectjax.runtime.optim import OptimConfig
from affectjax.runtime.parallel import ParallelConfig
from affectjax.tasks.umbenet import UMBEnetStage
from affectjax.tasks.umbenet.assembly import ModelConfig
from affectjax.training.loop import TrainConfig

PAPER = ("dfew", "ferv39k", "mafw")
# name of the data set: batch, epochs of stage 1, epochs of stage 2
LENGTHS = {
    "synth": (32, 20, 20),
    "dfew": (16, 20, 60),
    "ferv39k": (16, 20, 60),
    "mafw": (16, 20, 60),
    "clips": (32, 20, 20),
    "ravdess": (32, 10, 15),
    "fer2013": (128, 2, 10),
    "mosi": (32, 6, 8),
}


def get_config(arg: str = "synth") -> config_dict.ConfigDict:
    """Returns the config of a variant, as in "dfew" or "synth,single"."""
    name, *options = (arg or "synth").split(",")
    if name not in LENGTHS or not set(options) <= {"single"}:
        raise InputError(
            f"configs/umbenet.py:{arg} is no variant; allowed: {', '.join(LENGTHS)}, each also "
            "with ',single'"
        )
    config = config_dict.ConfigDict()
    config.task = "umbenet"
    config.seed = 0
    config.seeds = ()
    config.data = _data(name)
    config.model = _model(name)
    # One folder gives the towers and the words that they know.
    folder = config_dict.FieldReference("")
    config.model.weights = folder
    config.data.tokenizer = folder
    config.optim = _optim(name)
    stages = {} if "single" in options else {"unimodal": _unimodal(name)}
    stages["missing"] = _missing(name)
    if "single" in options:
        stages["missing"].epochs += _unimodal(name).epochs
    config.stages = config_dict.ConfigDict(stages)
    config.train = section(TrainConfig)
    config.parallel = section(ParallelConfig)
    return config


def _data(name: str) -> config_dict.ConfigDict:
    """Returns `config.data`: clips, but for MOSI, whose features are published."""
    values = {"name": "affect_synth" if name == "synth" else name, "view": "clips"}
    if name == "synth":
        values |= {"tokens": 24, "seconds": 1.5}
    elif name in PAPER:
        values |= {"sampling": "random", "valid": "holdout", "holdout": 0.1}
        # DFEW and FERV39k come as face crops.
        values |= {"detector": "cascade" if name == "mafw" else "none"}
        if name == "mafw":
            values |= {"without": ("neutral",)}
    elif name == "ravdess":
        values |= {"tokens": 16, "seconds": 4.0}
        values |= {"valid": "holdout", "holdout": 0.2, "test": "valid"}
    elif name == "fer2013":
        values |= {"frames": 1, "image_size": 48, "detector": "none", "test": "valid"}
        values |= {"valid": "holdout", "holdout": 0.1}
    elif name == "mosi":
        values |= {"view": "sequences", "threshold": 0.0}
    return section(DataConfig, max_length=config_dict.ConfigDict(), **values)


def _model(name: str) -> config_dict.ConfigDict:
    """Returns `config.model`: small towers from scratch; the paper's sets add augmentation."""
    small = {
        "vision": "conv",
        "width": 128,
        "text_width": 128,
        "heads": 4,
        "temporal_heads": 4,
        "temporal_layers": 1,
        "prompt_tokens": 8,
        "inherent_tokens": 8,
        "logit_scale": 14.0,
        "dropout": 0.2,
        "flip": 0.5,
        "gain_db": 6.0,
        # Adam moves W1 as fast for a small L1 term as for a large one: with SPEC's 1e-4 these
        # small gates are zero within two epochs.
        "l1": 1e-6,
    }
    if name in PAPER:
        return section(
            ModelConfig,
            frozen=("text_tower", "image_tower"),
            logit_scale=100.0,
            flip=0.5,
            shift=0.05,
        )
    if name == "fer2013":
        small |= {"shift": 0.08, "contrast": 0.2, "brightness": 0.1}
    if name == "mosi":
        small |= {"text": "features", "audio": "features", "vision": "features"}
    return section(ModelConfig, **small)


def _optim(name: str) -> config_dict.ConfigDict:
    if name in PAPER:
        return section(
            OptimConfig,
            learning_rate=2e-3,
            plateau_patience=3,
            plateau_factor=0.6,
            stop_rate=1e-7,
        )
    return section(
        OptimConfig,
        name="adamw",
        learning_rate=1e-3,
        weight_decay=0.2 if name in ("fer2013", "mosi") else 0.5,
        schedule="cosine",
        warmup_epochs=1.0,
        average_decay=0.98,
    )


def _unimodal(name: str) -> config_dict.ConfigDict:
    """Returns stage 1: its last epoch counts, for the prompts that it leaves activated."""
    size, epochs, _ = LENGTHS[name]
    return section(
        UMBEnetStage, epochs=epochs, batch_size=size, select="last", shows="one", usage_penalty=1.0
    )


def _missing(name: str) -> config_dict.ConfigDict:
    size, _, epochs = LENGTHS[name]
    stop = 0.8 if name in PAPER else 0.0
    return section(UMBEnetStage, epochs=epochs, batch_size=size, stop_accuracy=stop)
