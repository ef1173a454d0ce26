"""Trains UMBEnet on the embedded set and shows what it can do: `make demo`.

    python -m launch.demo --workdir=runs/demo
    python -m launch.demo --workdir=runs/demo --all

It prints the table over missing modalities beside a model that reads text alone, predicts a film
over time, writes the report page, and says what to type next. `--all` (`make demo-all`) trains MCR,
MulT and supramodal concepts too. Started again, it goes on where it was.
"""

import json
import time
from pathlib import Path
from typing import Any

from absl import flags, logging
from ml_collections import config_dict

import affectjax
from affectjax.reports import run_report
from affectjax.runtime import app
from affectjax.training import baselines
from configs import mcr, mult, supramodal, umbenet
from launch import film

_WORKDIR = flags.DEFINE_string("workdir", "runs/demo", "The folder of the runs.")
_ALL = flags.DEFINE_bool("all", False, "Whether to train the other systems too.")

EMOTIONS = ("happy", "neutral", "angry")
METRICS = ("war", "uar", "f1_weighted")
ALONE = "text"


def umbenet_config() -> config_dict.ConfigDict:
    """Returns the config of UMBEnet, made short: fewer frames and epochs than the default."""
    config = umbenet.get_config()
    config.data.frames = 4
    config.stages.unimodal.epochs = 4
    config.stages.missing.epochs = 14
    config.optim.average_decay = 0.95
    config.train.checkpoint_epochs = 4
    return config


def alone_config() -> config_dict.ConfigDict:
    """Returns the config of a model of one modality, the best of the three.

    It may train as long as UMBEnet; it ends earlier, as its validation loss has long been rising.
    """
    config = umbenet_config()
    for key in ("frames", "sampling", "seconds"):  # of the other modalities
        del config.data[key]
    del config.stages.unimodal
    config.stages.missing.update(epochs=18, shows="all", patience=6)
    config.data.modalities = config.model.modalities = (ALONE,)
    return config


def other_configs() -> dict[str, config_dict.ConfigDict]:
    """Returns the configs of the other systems by the name of their run."""
    configs = {"mcr": mcr, "mult": mult, "supramodal": supramodal}
    made = {name: module.get_config() for name, module in configs.items()}
    made["mult"].model.layers = 2
    made["mult"].stages.train.epochs = 15
    for config in made.values():
        config.train.checkpoint_epochs = 5
    return made


def missing_table(folder: Path, alone: dict[str, Any]) -> str:
    """Returns WAR by what is shown, in percent, of UMBEnet and of what it is compared with.

    These are the model of one modality, and linear models on each modality and on all.
    """
    subsets = json.loads((folder / "umbenet/eval/missing.json").read_text())["subsets"]
    (standing,) = baselines.standings(folder / "umbenet")
    lines = [f"  {'shown':20} {'UMBEnet':>8} {ALONE + ' alone':>13} {'linear model':>13}"]
    ordered = sorted(subsets, key=lambda name: -name.count("+"))
    for shown in ordered:
        other = f"{100 * alone['war']:.1f}" if shown == ALONE else ""
        name = "all" if shown == ordered[0] else shown
        linear = standing.rows.get(f"{baselines.LINEAR}{name}")
        line = f"  {shown:20} {100 * subsets[shown]['war']:8.1f} {other:>13}"
        lines.append(line + (f" {100 * linear['war']:13.1f}" if linear else ""))
    return "\n".join(line.rstrip() for line in lines)


def metrics_table(results: dict[str, dict[str, Any]]) -> str:
    """Returns the metrics of each run as a table, in percent."""
    lines = [f"  {'':12} " + " ".join(f"{name:>12}" for name in METRICS)]
    for run, result in results.items():
        lines.append(f"  {run:12} " + " ".join(f"{100 * result[name]:12.1f}" for name in METRICS))
    return "\n".join(lines)


def timeline(prediction: dict[str, Any]) -> str:
    """Returns the most probable emotion of each window of a prediction."""
    lines = []
    for window in prediction["timeline"]:
        if window["probability"] is None:  # nothing was to see or hear
            continue
        name, share = max(window["probability"].items(), key=lambda pair: pair[1])
        bar = "#" * round(20 * share)
        lines.append(
            f"  {window['start']:4.2f} to {window['end']:4.2f} s  {name:9} {share:4.0%} {bar}"
        )
    return "\n".join(lines)


def main(argv):
    """Trains what is not trained yet, and prints what came out and where the files are."""
    del argv
    logging.set_verbosity(logging.WARNING)
    folder, start = Path(_WORKDIR.value), time.monotonic()
    _say(
        "affect_synth: clips made by code, of people who act seven emotions with face, voice and\n"
        "words. Nothing is downloaded; to make them takes a moment, the first time.\n\n"
        "1. UMBEnet, shown one modality at a time, then clips from which any is missing"
    )
    affectjax.train(umbenet_config(), folder / "umbenet")
    _say(f"2. The same network with {ALONE} alone, the best single modality")
    alone = affectjax.train(alone_config(), folder / ALONE)
    _say(f"3. Clips of new people, percent right (WAR)\n\n{missing_table(folder, alone)}")

    _say(f"4. A film of a new person who acts {', '.join(EMOTIONS)}, 1.5 s each; no words\n")
    path = folder / "film.mp4"
    film.write(path, *film.acted(EMOTIONS))
    predicted = affectjax.recognize(folder / "umbenet", path, output=folder / "film", hop=0.25)
    prediction = predicted["predictions"][0]
    print(timeline(prediction))
    print(f"\n  the film: {path}; over time: {folder / 'film' / prediction['figure']}")
    page = run_report.write(folder / "umbenet")
    _say(f"5. The report: {page}")

    if _ALL.value:
        results = {}
        for name, config in other_configs().items():
            _say(f"{name}")
            results[name] = affectjax.train(config, folder / name)
        _say(f"New people, percent\n\n{metrics_table(results)}")
        print("\n  supramodal is a small model of single faces; the others see whole clips")
    predict = f".venv/bin/python -m affectjax.predict --checkpoint={folder / 'umbenet'}"
    _say(
        f"{time.monotonic() - start:.0f} s. Next, a film or a picture of yours, or a sentence:\n\n"
        f"  {predict} --input=FILE\n"
        f'  {predict} --text="What a day!"'
    )


def _say(text: str) -> None:
    print(f"\n{text}", flush=True)


if __name__ == "__main__":
    app.run(main)
