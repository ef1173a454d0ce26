"""The files in configs/: where they are, and what they have in common.

A key that a file leaves out has its default.
"""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from ml_collections import config_dict

from affectjax.errors import InputError

PACKAGE = Path(__file__).parents[1]
# In an installed package, and in the source tree.
FOLDERS = (PACKAGE / "configs", PACKAGE.parent / "configs")
# What most people change of `config.data`, whichever data set it is.
DATA: dict[str, Any] = {
    "dir": "",
    "seed": 0,
    "modalities": (),
    "train": "train",
    "valid": "valid",
    "test": "test",
    "holdout": 0.0,
    "missing_pattern": "",
    "missing_rate": 0.0,
}


def names() -> dict[str, Path]:
    """Returns the config files that come with the package, by name."""
    folder = next((folder for folder in FOLDERS if folder.is_dir()), FOLDERS[0])
    return {file.stem: file for file in sorted(folder.glob("*.py")) if file.stem != "__init__"}


def find(given: str) -> Path:
    """Returns the config file that a path or a name means.

    Args:
      given: a path; or the name of a file that comes with the package, as "umbenet" or
        "configs/umbenet.py", where there is no such path.

    Raises:
      InputError: there is neither.
    """
    path = Path(given)
    if path.is_file():
        return path
    ours = names()
    if path.stem in ours and path.with_suffix("").parts in ((path.stem,), ("configs", path.stem)):
        return ours[path.stem]
    raise InputError(
        f"--config={given}: there is no such file; configs that are found by name: "
        + ", ".join(ours)
    )


def sequences(name: str, *, aligned: bool) -> dict[str, Any]:
    """Returns `config.data` of feature sequences.

    Args:
      name: of the variant; "synth" is the embedded data set.
      aligned: whether the modalities share their steps.
    """
    return {
        **DATA,
        "name": "affect_synth" if name == "synth" else name,
        "view": "sequences",
        "aligned": aligned,
        "max_length": {},
        "standardize": ("audio", "vision"),
    }


def run(task: str, **sections: Mapping[str, Any]) -> config_dict.ConfigDict:
    """Returns the config of a run.

    Args:
      task: `config.task`.
      **sections: data, model, optim and stages.
    """
    return config_dict.ConfigDict(
        {
            "task": task,
            "seed": 0,
            "seeds": (),
            **sections,
            "train": {
                "eval_batch_size": 64,
                "checkpoint_epochs": 1,
                "checkpoint_steps": 0,
                "progress": True,
                "baselines": True,
            },
            "parallel": {"engine": "pmap"},
        }
    )


def variant(
    file: str, arg: str, names: Iterable[str], options: Collection[str], most: int | None = None
) -> tuple[str, tuple[str, ...]]:
    """Returns the name and the options of a variant, as in "mosi,aligned".

    Args:
      file: the config file, for the message.
      arg: what stands after the colon of --config; "" for the first of `names`.
      names: those that there are.
      options: those that may follow.
      most: how many of them at once, None for any number.

    Raises:
      InputError: it is no variant.
    """
    name, *chosen = (arg or next(iter(names))).split(",")
    if name in names and set(chosen) <= set(options) and (most is None or len(chosen) <= most):
        return name, tuple(chosen)
    each = "with one of" if most == 1 else "with"
    said = ", ".join(f"',{option}'" for option in options)
    raise InputError(
        f"{file}:{arg} is no variant; allowed: {', '.join(names)}, each also {each} {said}"
    )
