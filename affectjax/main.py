r"""Trains and evaluates: `affectjax train --config=umbenet --workdir=runs/umbenet`.

    affectjax train --config=umbenet:clips --config.data.dir=DIR --workdir=runs/own
    affectjax train --config=mcr:mosi,small --config.data.dir=MOSI --workdir=runs/mosi
    affectjax train --config=supramodal:real --config.data.root=DATA --workdir=runs/concepts
    affectjax train --config=umbenet --config.seeds="(0,1,2)" --workdir=runs/three
    affectjax eval --workdir=runs/own --config.data.missing_pattern=text
    python -m affectjax.main --config=configs/umbenet.py --workdir=runs/umbenet

Given again, a command goes on where it stopped. A config is a path, or the name of one that comes
with the package; a variant stands after a colon, its options after commas:

    umbenet     synth, dfew, ferv39k, mafw, clips, ravdess, fer2013, mosi; options single, lora
    mcr         synth, mosi, mosei, iemocap, own; options aligned, small, lora
    mult        synth, mosi, mosei, iemocap, own; option aligned
    supramodal  synth, real, mosi, paper; one option: joint, sequential, learn, downstream, text,
                audio, vision

Each key of a config is a flag. Those that people change most, STAGE is unimodal, missing (umbenet),
train (mcr, mult), joint, sequential or downstream (supramodal):

    --config.data.dir=DIR                  the data: raw files, or a prepared folder
    --config.data.name=NAME                a data set, or the dotted name of a module of yours
    --config.data.train=SPLIT              the split that trains; also .valid and .test
    --config.data.holdout=0.1              with data.valid=holdout: the part held out to choose by
    --config.data.kfold=5                  cross-validation over speakers or videos
    --config.data.modalities="('text',)"   what of the data is used
    --config.data.class_map=seven          other classes than those of the set
    --config.data.missing_pattern=text     what is left of an example; missing_rate: of how many
    --config.data.frames=16                of a clip; with it seconds, tokens, image_size
    --config.model.weights=FOLDER          pretrained towers, a folder or a name on the hub
    --config.model.audio=mel               an encoder; also model.text, model.vision
    --config.model.dropout=0.2             of umbenet; mcr and mult have one for each place
    --config.optim.learning_rate=1e-3      at most
    --config.optim.weight_decay=0.1        of AdamW
    --config.optim.schedule=cosine         constant, cosine or step
    --config.stages.STAGE.epochs=20        passes over the training part
    --config.stages.STAGE.batch_size=32    examples a step, over all devices
    --config.stages.STAGE.select=war       the metric of validation by which an epoch is chosen
    --config.seed=1                        of everything drawn at random
    --config.seeds="(0,1,2)"               several models at once, and their mean
    --config.parallel.engine=pmap          or shard_map
"""

from absl import flags
from ml_collections import config_flags

import affectjax
from affectjax.errors import InputError
from affectjax.runtime import app, config_files

# A config file need not name every key of a run: those that it leaves out can be set here, too.
_CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,
    "A config file or its name, as configs/mcr.py:mosi or mcr:mosi.",
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
        known = ", ".join(config_files.names())
        raise InputError(f"--config is missing, a path or one of the names {known}")
    else:
        from affectjax.training import run_config  # JAX starts slowly

        result = affectjax.train(run_config.choose(_CONFIG.value, overrides), _WORKDIR.value)
    # As slow to import as what was called above.
    from affectjax.reports import run_report
    from affectjax.runtime.workdir import Workdir
    from affectjax.training import evaluator

    print(f"results: {_WORKDIR.value}/eval")
    if trains:
        print("\n".join(run_report.last_words(_WORKDIR.value, result)))
    else:
        stem = evaluator.stem(Workdir(_WORKDIR.value).config(), overrides)
        print(run_report.table(_WORKDIR.value, stem))


if __name__ == "__main__":
    app.run(main)
