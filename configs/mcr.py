"""MCR on feature sequences: affect_synth, CMU-MOSI, CMU-MOSEI, IEMOCAP or one's own.

    python -m affectjax.main --config=configs/mcr.py --workdir=runs/mcr
    python -m affectjax.main --config=configs/mcr.py:mosi --config.data.dir=DIR --workdir=runs/mosi
    python -m affectjax.main --config=configs/mcr.py:mosei,aligned --config.data.dir=DIR --workdir=W

Variants: synth (default), mosi, mosei, iemocap, own; each also `,aligned`, and `,small` for sets of
about a thousand utterances and `,lora`, which reads their sentences with a BERT
(`--config.model.bert_weights=FOLDER --config.data.tokenizer=FOLDER`).
`--config.seeds="(0,1,2,3,4)"` trains five models as one program.

Measured on two CPU cores (docs/results.md): synth, seeds 0 to 2, WAR 96.1 ± 0.4; mosi,small on
text and audio, seeds 0 to 4, acc2_has0 76.0 ± 1.0 and mae 0.860 ± 0.005 in 11 minutes. The paper's
MOSI, unaligned, on GPUs: acc2 84.8, mae 0.824, with other features.

Batch size, learning rate, epochs, heads, kernels and layers of mosi, mosei and iemocap are those of
Table 1 of Yang et al. 2023; the dropout rates, which the paper does not give, are ours.
"""

from ml_collections import config_dict

from affectjax.runtime import config_files

# name of the data set: batch, learning rate, epochs, heads, kernel of audio, layers, selected by
TABLE_1 = {
    "synth": (64, 1e-3, 30, 10, 3, 3, "war"),
    "mosi": (64, 1e-3, 120, 10, 3, 3, "loss"),
    "mosei": (16, 1e-3, 30, 8, 3, 4, "loss"),
    "iemocap": (32, 2e-3, 60, 10, 5, 3, "loss"),
    "own": (64, 1e-3, 60, 10, 3, 3, "loss"),
}
OPTIONS = ("aligned", "small", "lora")


def get_config(arg: str = "synth") -> config_dict.ConfigDict:
    """Returns the config of a variant, as in "mosi" or "mosi,aligned,small"."""
    name, options = config_files.variant("configs/mcr.py", arg, TABLE_1, OPTIONS)
    batch, rate, epochs, heads, audio_kernel, layers, select = TABLE_1[name]
    config = config_files.run(
        "mcr",
        data=config_files.sequences(name, aligned="aligned" in options),
        model={
            "name": "mcr",
            "modalities": (),
            "kernels": {"text": 3, "audio": audio_kernel, "vision": 3},
            "width": 40,
            "heads": heads,
            "layers": layers,
            "input_dropout": {},
            "embed_dropout": 0.1,
            "attention_dropout": 0.1,
            "relu_dropout": 0.1,
            "residual_dropout": 0.1,
            "output_dropout": 0.1,
            # The ablations of Table 5.
            "targets": (),
            "cmu": True,
            "scu": True,
            "mutual": True,
            "attention_layer": "collapsed",
            "source_update": "memory",
            "structure": "parallel",
        },
        optim={"name": "adam", "learning_rate": rate, "clip_norm": 1.0, "schedule": "constant"},
        stages={"train": {"epochs": epochs, "batch_size": batch, "select": select, "patience": 20}},
    )
    if name == "synth":
        _by_moments(config)
    if "small" in options:
        _for_a_small_set(config)
    if "lora" in options:
        _over_words(config)
    return config


def _by_moments(config: config_dict.ConfigDict) -> None:
    """Gives modalities a common clock: voice and face say by moments which word is meant."""
    with config.unlocked():
        config.model.update(
            layers=1,
            linear_path="moments",
            coincidence=config_dict.ConfigDict({"text": 4}),
            input_dropout=config_dict.ConfigDict(dict.fromkeys(("text", "audio", "vision"), 0.1)),
            embed_dropout=0.3,
            residual_dropout=0.3,
            output_dropout=0.3,
        )
        _start_at_zero(config, rate=3e-3, decay=0.1, warmup=1.0, average=0.99)
        config.stages.train.update(epochs=20)


def _for_a_small_set(config: config_dict.ConfigDict) -> None:
    """Regularises a config for about a thousand utterances; its length is fixed beforehand."""
    with config.unlocked():
        config.model.update(
            input_dropout=config_dict.ConfigDict({"text": 0.5, "audio": 0.9, "vision": 0.9}),
            embed_dropout=0.3,
            attention_dropout=0.2,
            relu_dropout=0.3,
            residual_dropout=0.3,
            output_dropout=0.3,
        )
        config.model.kernels = config_dict.ConfigDict({"text": 1, "audio": 1, "vision": 1})
        _start_at_zero(config, rate=2e-3, decay=1.0, warmup=2.0, average=0.99)
        config.stages.train.update(epochs=30, batch_size=64, select="last")


def _over_words(config: config_dict.ConfigDict) -> None:
    """Reads the sentences themselves: BERT below the model, its upper half adapted by LoRA."""
    with config.unlocked():
        config.data.update(words=True, tokens=32, tokenizer="")
        config.model.update(
            text="bert",
            bert_weights="",
            tuned_layers=3,
            lora_rank=8,
            lora_alpha=16.0,
            lora_dropout=0.1,
            lora_targets="all",
            layers=1,
            linear_path="mean",
            input_dropout=config_dict.ConfigDict({"audio": 0.9, "vision": 0.9}),
        )
        config.model.kernels = config_dict.ConfigDict({"text": 1, "audio": 1, "vision": 1})
        _start_at_zero(config, rate=1e-3, decay=0.01, warmup=0.4, average=0.0)
        config.stages.train.update(epochs=4, batch_size=32, select="last")


def _start_at_zero(
    config: config_dict.ConfigDict, *, rate: float, decay: float, warmup: float, average: float
) -> None:
    """Lets a model that predicts zero at first learn by AdamW for all of its epochs."""
    config.model.update(encoder_norm=False, zero_init=True)
    config.optim.update(
        name="adamw",
        learning_rate=rate,
        weight_decay=decay,
        schedule="cosine",
        warmup_epochs=warmup,
        average_decay=average,
    )
    config.stages.train.update(patience=0)
