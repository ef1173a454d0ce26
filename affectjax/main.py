"""Trains or evaluates: `python -m affectjax.main --config=configs/mcr.py --workdir=runs/mcr`."""

from absl import flags
from ml_collections import config_flags

import affectjax
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
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "The folder of the run; docs/runs.md says what is in it."
)
_MODE = flags.DEFINE_enum("mode", "train", ["train", "eval"], "What to do; train evaluates too.")


def main(argv):
    """Trains or evaluates, and prints where the results are, the first of them, and baselines."""
    del argv
    if not _WORKDIR.value:
        raise InputError("--workdir is missing: where should the run leave its files?")
    given = _CONFIG.value is not None
    overrides = config_flags.get_override_values(flags.FLAGS["config"]) if given else {}
    trains = _MODE.value == "train"
    if not trains:
        result = affectjax.evaluate(_WORKDIR.value, overrides)
    elif _CONFIG.value is None:
        raise InputError("--config is missing, as in --config=configs/mcr.py")
    else:
        from affectjax.training import run_config  # JAX starts slowly

        result = affectjax.train(run_config.choose(_CONFIG.value, overrides), _WORKDIR.value)
    print(f"results: {_WORKDIR.value}/eval")
    from affectjax import metrics  # as slow to import as what was called above

    print(metrics.line(result))
    if trains:
        from affectjax.training import baselines

        for standing in baselines.standings(_WORKDIR.value):
            print("\n".join(standing.lines()))


if __name__ == "__main__":
    app.run(main)
