"""Trains small models on the embedded set and prints one table: `make demo`.

    python -m launch.demo --workdir=runs/demo

MCR and MulT on all three modalities, and MCR on each modality alone; a few minutes on two cores.
Started again, it goes on where it was, or prints the table of what is there.
"""

import json
import time
from pathlib import Path

from absl import flags
from ml_collections import config_dict

from affectjax.runtime import app
from affectjax.train import train
from configs import mcr, mult

_WORKDIR = flags.DEFINE_string("workdir", "runs/demo", "The folder of the runs.")
_EPOCHS = flags.DEFINE_integer("epochs", 15, "Epochs of each model.")

METRICS = ("war", "uar", "f1_weighted")


def demo_configs(epochs: int) -> dict[str, config_dict.ConfigDict]:
    """Returns the configs of the demo by the name of their run.

    Args:
      epochs: of each.
    """
    configs = {"mcr": mcr.get_config(), "mult": mult.get_config()}
    for modality in ("text", "audio", "vision"):
        configs[f"mcr_{modality}"] = mcr.get_config()
        configs[f"mcr_{modality}"].model.modalities = (modality,)
    for config in configs.values():
        config.model.layers = 2
        config.stages.train.epochs = epochs
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
    """Trains what is not trained yet, and prints the table and where the files are."""
    del argv
    folder, results = Path(_WORKDIR.value), {}
    start = time.monotonic()
    for name, config in demo_configs(_EPOCHS.value).items():
        print(f"\n{name}: {', '.join(config.model.modalities) or 'all modalities'}", flush=True)
        results[name] = train(config, folder / name)
    singles = {name: result["war"] for name, result in results.items() if name.count("_")}
    best = max(singles, key=singles.get)
    print(f"\naffect_synth, test split, new speakers, percent\n\n{table(results)}\n")
    gain = 100 * (results["mcr"]["war"] - singles[best])
    print(f"All modalities against the best single one ({best}): {gain:+.1f} points of WAR.")
    missing = json.loads((folder / "mcr" / "eval" / "missing.json").read_text())["subsets"]
    print("The same MCR model when modalities are missing (WAR):")
    for shown, result in missing.items():
        print(f"  {shown:20} {100 * result['war']:5.1f}")
    print(f"\n{time.monotonic() - start:.0f} s. Each run left, in {folder}/<run>/:")
    for file in sorted(path for path in (folder / "mcr").rglob("*") if path.is_file()):
        relative = file.relative_to(folder / "mcr")
        if relative.parts[0] != "checkpoints":
            print(f"  {relative}")
    print("  checkpoints/latest, checkpoints/best")


if __name__ == "__main__":
    app.run(main)
