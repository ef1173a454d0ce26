"""Trains or evaluates: `python -m affectjax.main --config=configs/mcr.py --workdir=runs/mcr`."""

from absl import flags
from ml_collections import config_flags

from affectjax.errors import InputError
from affectjax.runtime import app

# A config file need not name every key of a run: those that it leaves out can be set here, too.
_CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,
    "A config file, as configs/mcr.py:mosi.",
    lock_config=False,
    accept_new_attributes=True,
)
_WORKDIR = flags.DEFINE_string("workdir", None, "The folder of the run; see README.")
_MODE = flags.DEFINE_enum("mode", "train", ["train", "eval"], "What to do; train evaluates too.")


def main(argv):
    """Calls `train.train` or `evaluate.evaluate`."""
    del argv
    from affectjax.training import (  # JAX starts slowly: a wrong flag answers before that
        evaluator,
        loop,
    )

    if not _WORKDIR.value:
        raise InputError("--workdir is missing: where should the run leave its files?")
    if _MODE.value == "eval":
        given = _CONFIG.value is not None
        overrides = config_flags.get_override_values(flags.FLAGS["config"]) if given else {}
        evaluator.evaluate(_WORKDIR.value, overrides)
        return
    if _CONFIG.value is None:
        raise InputError("--config is missing, as in --config=configs/mcr.py")
    loop.train(_CONFIG.value, _WORKDIR.value)


if __name__ == "__main__":
    app.run(main)
