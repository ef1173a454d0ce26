"""Multimodal emotion recognition in JAX: UMBEnet, MCR with MulT, and supramodal concepts.

    import affectjax

    affectjax.train(config, "runs/x")                  # then affectjax.evaluate("runs/x")
    model = affectjax.load("runs/x")
    model("clip.mp4", text="what was said").label
    affectjax.recognize("runs/x", "clip.mp4")          # writes files, as affectjax predict does
    affectjax.concepts.load("runs/x/concepts")

These names are imported when they are first used: JAX starts slowly.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "train": "affectjax.training.loop",
    "evaluate": "affectjax.training.evaluator",
    "load": "affectjax.recognition",
    "recognize": "affectjax.inference",
    "Recognizer": "affectjax.inference",
}
_MODULES = {"concepts": "affectjax.tasks.supramodal.concept_bank"}

__all__ = ["Recognizer", "concepts", "evaluate", "load", "recognize", "train"]


def __getattr__(name: str) -> Any:
    """Returns what a public name stands for."""
    if name in _MODULES:
        return importlib.import_module(_MODULES[name])
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Returns the public names too."""
    return sorted({*globals(), *__all__})
