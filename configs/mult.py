"""MulT, the baseline of MCR, on the same feature sequences.

    python -m affectjax.main --config=configs/mult.py --workdir=runs/mult
    python -m affectjax.main --config=configs/mult.py:mosi --config.data.dir=DIR --workdir=runs/mult

Variants: synth (default), mosi, mosei, iemocap, own; each also `,aligned`.

Measured on two CPU cores (docs/results.md): synth with 2 layers and 15 epochs, WAR 71.1 in
55 s; mosi on text and audio, 15 epochs, seeds 0 to 4, acc2_has0 71.3 ± 3.2 and mae 1.067 ± 0.070 in
4 minutes. Published for MOSI, unaligned, on a GPU: acc2 81.1, mae 0.889, with other features.

Batch size, learning rate, epochs, heads, kernels, dropout and clipping of mosi, mosei and iemocap
are those that Tsai et al. 2019 published for their benchmarks.
"""

from ml_collections import config_dict

from affectjax.runtime import config_files

# name: batch, learning rate, epochs, heads, kernel of audio, embed and attention dropout, clip
PUBLISHED = {
    "synth": (64, 1e-3, 30, 10, 3, 0.1, 0.1, 1.0),
    "mosi": (128, 1e-3, 100, 10, 3, 0.2, 0.2, 0.8),
    "mosei": (16, 1e-3, 20, 8, 3, 0.3, 0.1, 1.0),
    "iemocap": (32, 2e-3, 30, 10, 5, 0.3, 0.25, 0.8),
    "own": (64, 1e-3, 60, 10, 3, 0.2, 0.1, 1.0),
}


def get_config(arg: str = "synth") -> config_dict.ConfigDict:
    """Returns the config of a variant, as in "mosi" or "mosi,aligned"."""
    name, options = config_files.variant("configs/mult.py", arg, PUBLISHED, ("aligned",))
    batch, rate, epochs, heads, audio_kernel, embed, attention, clip = PUBLISHED[name]
    return config_files.run(
        "mcr",
        data=config_files.sequences(name, aligned="aligned" in options),
        model={
            "name": "mult",
            "modalities": (),
            "kernels": {"text": 3, "audio": audio_kernel, "vision": 3},
            "width": 40,
            "heads": heads,
            "layers": 4,
            "embed_dropout": embed,
            "attention_dropout": attention,
            "relu_dropout": 0.1,
            "residual_dropout": 0.1,
            "output_dropout": 0.1,
        },
        optim={
            "name": "adam",
            "learning_rate": rate,
            "clip_norm": clip,
            "schedule": "constant",
            "plateau_patience": 20,
            "plateau_factor": 0.1,
        },
        stages={
            "train": {
                "epochs": epochs,
                "batch_size": batch,
                "select": "war" if name == "synth" else "loss",
                "patience": 20,
            }
        },
    )
