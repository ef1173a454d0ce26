"""MCR on feature sequences: affect_synth, CMU-MOSI, CMU-MOSEI, IEMOCAP or one's own.

    python -m affectjax.main --config=configs/mcr.py --workdir=runs/mcr
    python -m affectjax.main --config=configs/mcr.py:mosi --config.data.dir=DIR --workdir=runs/mosi
    python -m affectjax.main --config=configs/mcr.py:mosei,aligned --config.data.dir=DIR --workdir=W

Variants: synth (default), mosi, mosei, iemocap, own; each also `,aligned`, and `,small` for sets of
about a thousand utterances. `--config.seeds="(0,1,2,3,4)"` trains five models
as one program.

Measured on two CPU cores, README has the commands: synth with 2 layers and 15 epochs, WAR 75.4 in
70 s; mosi,small on text and audio, seeds 0 to 4, acc2_has0 76.0 ± 1.0 and mae 0.860 ± 0.005 in
11 minutes. The paper's MOSI, unaligned, on GPUs: acc2 84.8, mae 0.824, with other features.

Batch size, learning rate, epochs, heads, kernels and layers of mosi, mosei and iemocap are those of
Table 1 of Yang et al. 2023; the dropout rates, which the paper does not give, are ours.
"""

from ml_collections import config_dict

from affectjax.data.batches.dataset import DataConfig
from affectjax.errors import InputError
from affectjax.models.mcr import MCR
from affectjax.runtime.configs import section
from affectjax.runtime.optim import OptimConfig
from affectjax.runtime.parallel import ParallelConfig
from affectjax.tasks.base import StageConfig
from affectjax.training.loop import TrainConfig

# name of the data set: batch, learning rate, epochs, heads, kernel of audio, layers, selected by
TABLE_1 = {
    "synth": (64, 1e-3, 30, 10, 3, 3, "war"),
    "mosi": (64, 1e-3, 120, 10, 3, 3, "loss"),
    "mosei": (16, 1e-3, 30, 8, 3, 4, "loss"),
    "iemocap": (32, 2e-3, 60, 10, 5, 3, "loss"),
    "own": (64, 1e-3, 60, 10, 3, 3, "loss"),
}


def get_config(arg: str = "synth") -> config_dict.ConfigDict:
    """Returns the config of a variant, as in "mosi" or "mosi,aligned,small"."""
    name, *options = (arg or "synth").split(",")
    if name not in TABLE_1 or not set(options) <= {"aligned", "small"}:
        raise InputError(
            f"configs/mcr.py:{arg} is no variant; allowed: {', '.join(TABLE_1)}, each also with "
            "',aligned' and ',small'"
        )
    batch, rate, epochs, heads, audio_kernel, layers, select = TABLE_1[name]
    config = config_dict.ConfigDict()
    config.task = "mcr"
    config.seed = 0
    config.seeds = ()
    config.data = section(
        DataConfig,
        name="affect_synth" if name == "synth" else name,
        aligned="aligned" in options,
        max_length=config_dict.ConfigDict(),
    )
    config.model = section(
        MCR,
        *("outputs", "axis_name"),
        modalities=(),
        kernels=config_dict.ConfigDict({"text": 3, "audio": audio_kernel, "vision": 3}),
        input_dropout=config_dict.ConfigDict(),
        heads=heads,
        layers=layers,
    )
    with config.model.unlocked():
        config.model.name = "mcr"
    config.optim = section(OptimConfig, learning_rate=rate)
    stage = section(StageConfig, epochs=epochs, batch_size=batch, select=select, patience=20)
    config.stages = config_dict.ConfigDict({"train": stage})
    config.train = section(TrainConfig)
    config.parallel = section(ParallelConfig)
    if "small" in options:
        _for_a_small_set(config)
    return config


def _for_a_small_set(config: config_dict.ConfigDict) -> None:
    """Regularises a config for about a thousand utterances; its length is fixed beforehand."""
    config.model.update(
        encoder_norm=False,
        zero_init=True,
        input_dropout=config_dict.ConfigDict({"text": 0.5, "audio": 0.9, "vision": 0.9}),
        embed_dropout=0.3,
        attention_dropout=0.2,
        relu_dropout=0.3,
        residual_dropout=0.3,
        output_dropout=0.3,
    )
    config.model.kernels = config_dict.ConfigDict({"text": 1, "audio": 1, "vision": 1})
    config.optim.update(
        name="adamw",
        learning_rate=2e-3,
        weight_decay=1.0,
        schedule="cosine",
        warmup_epochs=2.0,
        average_decay=0.99,
    )
    config.stages.train.update(epochs=30, batch_size=64, select="last", patience=0)
