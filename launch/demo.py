"""Trains small models on the embedded set and prints their tables: `make demo`.

    python -m launch.demo --workdir=runs/demo

UMBEnet on raw clips with any modality missing, MCR and MulT on feature sequences of the same
examples, then supramodal concepts from unpaired faces, voices and sentences, which guide a small
model of faces. Started again, it goes on where it was, or prints the tables of what is there.
"""

import json
import time
from pathlib import Path

from absl import flags
from ml_collections import config_dict

from affectjax.runtime import app
from affectjax.training.loop import train
from configs import mcr, mult, supramodal, umbenet

_WORKDIR = flags.DEFINE_string("workdir", "runs/demo", "The folder of the runs.")
_EPOCHS = flags.DEFINE_integer("epochs", 15, "Epochs of MCR and MulT.")

METRICS = ("war", "uar", "f1_weighted")


def demo_configs(epochs: int) -> dict[str, config_dict.ConfigDict]:
    """Returns the configs of the demo by the name of their run.

    Args:
      epochs: of MCR and MulT; the others are trained as their configs say.
    """
    modules = {"umbenet": umbenet, "mcr": mcr, "mult": mult, "supramodal": supramodal}
    configs = {name: module.get_config() for name, module in modules.items()}
    for name in ("mcr", "mult"):
        configs[name].model.layers = 2
        configs[name].stages.train.epochs = epochs
    for config in configs.values():
        config.train.checkpoint_epochs = 5
    return configs


def table(results: dict[str, dict]) -> str:
    """Returns the metrics of each run as a table, in percent."""
    head = f"{'':12} " + " ".join(f"{name:>12}" for name in METRICS)
    rows = [
        f"{run:12} " + " ".join(f"{100 * result[name]:12.1f}" for name in METRICS)
        for run, result in results.items()
    ]
    return "\n".join([head, *rows])


def main(argv):
    """Trains what is not trained yet, and prints the tables and where the files are."""
    del argv
    folder, results = Path(_WORKDIR.value), {}
    start = time.monotonic()
    for name, config in demo_configs(_EPOCHS.value).items():
        print(f"\n{name}", flush=True)
        results[name] = train(config, folder / name)
    print(f"\naffect_synth, test split, new speakers, percent\n\n{table(results)}\n")
    print("supramodal: a small model of single faces; the others see and hear whole clips.\n")
    missing = json.loads((folder / "umbenet" / "eval" / "missing.json").read_text())["subsets"]
    print("The same UMBEnet model when modalities are missing (WAR):")
    for shown, result in missing.items():
        print(f"  {shown:20} {100 * result['war']:5.1f}")
    print(f"\n{time.monotonic() - start:.0f} s. Each run left, in {folder}/<run>/:")
    for file in sorted(path for path in (folder / "umbenet").rglob("*") if path.is_file()):
        relative = file.relative_to(folder / "umbenet")
        if relative.parts[0] != "checkpoints":
            print(f"  {relative}")
    print("  checkpoints/latest, checkpoints/best")


if __name__ == "__main__":
    app.run(main)
