"""Every variant of every file in configs/ builds its task, and each of its keys is read."""

import contextlib
import copy
import dataclasses
import functools
import importlib.util
import itertools
import math
import re
import runpy
from pathlib import Path

import jax
import numpy as np
import pytest
from clip_media import raw_files
from conftest import CLASSES, CLIP_SIZE
from ml_collections import config_dict

from affectjax import emotions
from affectjax.data.batches import config as data_config
from affectjax.data.batches.dataset import Dataset
from affectjax.data.batches.inputs import Features, Frames, Inputs, Text, Waveform
from affectjax.data.batches.tokenizer import Tokenizer
from affectjax.data.labels import LabelSpec
from affectjax.data.media import codec
from affectjax.data.raw import dataset, sets
from affectjax.encoders import adaptation
from affectjax.errors import InputError
from affectjax.modalities import MODALITIES
from affectjax.runtime import configs, optim
from affectjax.tasks import base, umbenet
from affectjax.tasks.umbenet import assembly
from affectjax.training import run_config

FOLDER = Path(__file__).parents[1] / "configs"
SEQUENCES = ("synth", "mosi", "mosei", "iemocap", "own")
# Their towers are frozen, so they need weights.
FROZEN = ("dfew", "ferv39k", "mafw")
CLIPS = ("synth", *FROZEN, "clips", "ravdess", "fer2013", "mosi")
# File: the variants, and the options that each may have.
# Keys on whose values it depends which others there are.
DECIDE = ("name", "schedule", "audio")
VARIANTS = {
    "mcr": (SEQUENCES, ("aligned", "small")),
    "mult": (SEQUENCES, ("aligned",)),
    "umbenet": (CLIPS, ("single", "lora")),
    "supramodal": (
        ("synth", "real", "paper", "mosi"),
        ("joint", "sequential", "learn", "downstream", *MODALITIES),
    ),
}
# Option: the variants that alone may have it.
ALONE = {"lora": FROZEN}
# Whose options cannot stand together.
ONE_OPTION = ("supramodal",)
SPECS = {
    "mosi": LabelSpec("score", low=-3, high=3),
    "mosei": LabelSpec("score", low=-3, high=3),
    "iemocap": LabelSpec("binary", ("neutral", "happy", "sad", "angry")),
}
# What the clips of a data set have, where it is not all three.
HAVE = {
    "dfew": ("audio", "vision"),
    "ferv39k": ("audio", "vision"),
    "fer2013": ("vision",),
    "rafdb": ("vision",),
}
SENTENCES = ("Kids are talking by the door.", "What a day!")


def module(name):
    spec = importlib.util.spec_from_file_location(f"configs_{name}", FOLDER / f"{name}.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def every():
    """Returns (file, argument) of all variants with each subset of their options."""
    for name, (variants, options) in VARIANTS.items():
        for variant in variants:
            most = 1 if name in ONE_OPTION else len(options)
            for size in range(most + 1):
                for chosen in itertools.combinations(_options(variant, options), size):
                    yield name, ",".join((variant, *chosen))


def _options(variant, options):
    """Returns those of the options that a variant may have."""
    return [option for option in options if variant in ALONE.get(option, (variant,))]


def spec_of(data):
    """Returns what the labels mean; of the clips of a published set, what its module says."""
    spec = SPECS.get(data.name, LabelSpec("class", CLASSES))
    if data.view == dataset.CLIPS and data.name not in ("affect_synth", "clips"):
        spec = sets.get(data.name).labels
    if data.class_map:
        spec = LabelSpec("class", emotions.SCHEMES[data.class_map])
    return spec if data.cut is None else LabelSpec("class", data.classes)


def inputs_of(data):
    """Returns the inputs that the data of a config would give, with nothing on disk."""
    if data.view == dataset.SEQUENCES:
        kinds = {m: Features(5, 3 + i) for i, m in enumerate(MODALITIES)}
        if not data.words:
            return Inputs(kinds, spec_of(data))
    kinds = {
        "text": Text(data.tokens),
        "audio": Waveform(codec.samples(data.seconds)),
        "vision": Frames(data.frames, data.image_size),
    }
    words = Tokenizer.load(data.tokenizer) if data.tokenizer else Tokenizer.train(SENTENCES)
    have = data.modalities or HAVE.get(data.name, MODALITIES)
    return Inputs({m: kinds[m] for m in have}, spec_of(data), tokenizer=words)


def build(config):
    """Returns the task of a config, and checks all of it on the way, as a run does."""
    whole = run_config.resolve(config)
    found = {name: inputs_of(own) for name, own in run_config.data_sets(whole).items()}
    return base.build(whole, found, None)


def given_weights(config, clip_folder):
    """Returns the config with the weights of a tiny CLIP, and frames as it wants them."""
    config.model.weights = str(clip_folder)
    config.data.image_size = CLIP_SIZE
    return config


# How many keys a config file may have.
MOST_KEYS = {"mcr": 70, "mult": 70, "umbenet": 75, "supramodal": 150}


@pytest.mark.parametrize("name", VARIANTS)
def test_a_config_file_is_short(name):
    for argument in (a for file, a in every() if file == name):
        leaves = configs.flatten(module(name).get_config(argument))
        assert len(leaves) < MOST_KEYS[name], argument


def get_config(name, argument, request):
    """Returns the config of a variant, with weights where it cannot be without."""
    config = module(name).get_config(argument)
    if name == "umbenet" and argument.split(",")[0] in FROZEN:
        given_weights(config, request.getfixturevalue("clip_folder"))
    if name == "umbenet" and "lora" in argument.split(","):
        config.model.clap_weights = str(request.getfixturevalue("clap_folder"))
    if argument.endswith("downstream"):
        config.model.guided.guide = False  # a bank of another run is needed otherwise
    return config


def test_every_file_has_a_row_here():
    assert {f.stem for f in FOLDER.glob("*.py") if f.stem != "__init__"} == set(VARIANTS)


@pytest.mark.parametrize(("name", "argument"), list(every()), ids=map(":".join, every()))
def test_a_variant_builds(name, argument, request):
    config = get_config(name, argument, request)
    before = config.to_dict()
    if name in ("mcr", "mult"):
        assert config.data.aligned is ("aligned" in argument)
    task = build(config)
    trained = [section for section in config.stages.values() if "epochs" in section]
    assert len(task.stages) == len(trained)
    for name in base.evaluated_data_sets(config):
        assert set(base.scorer(task, name).modalities) <= set(MODALITIES)
    for stage in task.stages:
        sizes = stage.rules.batch_size
        assert stage.rules.epochs > 0 and all(
            s > 0 for s in (dict(sizes).values() if stage.turns else [sizes])
        )
        assert stage.trains("any/kernel") in (True, False)
    assert config.to_dict() == before, "to check a config is not to change it"


@pytest.mark.parametrize("name", VARIANTS)
def test_without_an_argument_it_is_the_first_variant(name):
    get_config = module(name).get_config
    first = get_config(VARIANTS[name][0][0]).to_dict()
    assert get_config().to_dict() == get_config("").to_dict() == first


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("argument", ["mosy", "mosi,alined", ","])
def test_what_is_no_variant_is_refused(name, argument):
    with pytest.raises(InputError, match=f"configs/{name}.py:{argument} is no variant; allowed: "):
        module(name).get_config(argument)


@pytest.mark.parametrize("name", VARIANTS)
def test_options_change_the_config(name):
    """An option that changes nothing would be a promise that nobody keeps."""
    variants, options = VARIANTS[name]
    get_config = module(name).get_config
    for option in options:
        variant = ALONE.get(option, variants)[-1]
        plain, chosen = (get_config(a).to_dict() for a in (variant, f"{variant},{option}"))
        assert configs.differences(plain, chosen), option


def sections(config):
    """Returns the sections whose keys a task reads."""
    model = config["model"]
    models = [model["learner"], model["guided"]] if "learner" in model else [model]
    return [*models, config["optim"], *config["stages"].values()]


@pytest.mark.parametrize("name", VARIANTS)
def test_every_key_is_read(name):
    """A key under another name is refused: none stands there that nobody asks for."""
    config = module(name).get_config().to_dict()
    count = len(sections(config))
    for number in range(count):
        for key in list(sections(config)[number]):
            other = copy.deepcopy(config)
            part = sections(other)[number]
            part[f"{key}_"] = part.pop(key)
            # Without a key that decides on others, it is one of those that is refused.
            with pytest.raises(InputError, match="config" if key in DECIDE else key):
                build(other)


@pytest.mark.parametrize(
    ("name", "section"), list(itertools.product(VARIANTS, ("model", "stages")))
)
def test_another_key_is_refused_with_the_nearest(name, section):
    config = module(name).get_config()
    with config.unlocked():
        stage = list(config.stages)[-1]
        model = "model"
        if section == "model":
            if name == "supramodal":
                model = "model.learner"
                config.model.learner.widht = 3
            else:
                config.model.widht = 3
        else:
            config.stages[f"{stage}s"] = config.stages[stage]
    expected = {
        "model": f'config.{model}.widht".*"config.{model}.width',
        "stages": f'config.stages.{stage}s".*"config.stages.{stage}"',
    }
    with pytest.raises(InputError, match=expected[section]):
        build(config)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_docstring_gives_the_command(name):
    said = module(name).__doc__
    assert f"python -m affectjax.main --config=configs/{name}.py" in said
    assert "MEASURED" not in said, "the measurements are still to be filled in"


def test_an_unknown_model_or_modality_is_named():
    config = module("mcr").get_config("own")
    config.model.name = "mrc"
    with pytest.raises(InputError, match=r'"config\.model\.name" is \'mrc\'; allowed: mcr, mult'):
        build(config)
    config = module("mcr").get_config("own")
    config.model.modalities = ("text", "smell")
    with pytest.raises(InputError, match=r'"config\.model\.modalities" has \'smell\'; the data'):
        build(config)


@pytest.mark.parametrize(("name", "model"), [("mcr", {"pool": "max"}), ("mcr", {"cmu": False})])
def test_values_that_a_model_refuses_are_input_errors(name, model):
    config = module(name).get_config("own")
    config.model.update({"scu": False, **model} if "cmu" in model else model)
    with pytest.raises(InputError, match=r"model\.(pool|cmu)"):
        build(config)


def test_a_configs_task_has_outputs_for_its_labels():
    for variant, outputs in (("mosi", 1), ("iemocap", 8), ("synth", len(CLASSES))):
        task = build(module("mcr").get_config(variant))
        assert task.model.outputs == outputs


@pytest.mark.parametrize("name", VARIANTS)
def test_building_touches_no_device(name, monkeypatch):
    monkeypatch.setattr(jax, "devices", lambda *_: pytest.fail("a device was asked for"))
    build(module(name).get_config())


# ---- UMBEnet ------------------------------------------------------------------------------------

# Variant: the modalities of its data, and how many classes there are, by the papers.
SHOWN = {
    "synth": (MODALITIES, len(CLASSES)),
    "dfew": (("audio", "vision"), 7),
    "ferv39k": (("audio", "vision"), 7),
    "mafw": (MODALITIES, 11),
    "clips": (MODALITIES, len(CLASSES)),
    "ravdess": (("audio",), 8),
    "fer2013": (("vision",), 7),
    "mosi": (MODALITIES, 2),
}


@pytest.mark.parametrize("variant", CLIPS)
def test_an_umbenet_has_a_logit_a_class_for_its_data(variant, request):
    task = build(get_config("umbenet", variant, request))
    modalities, classes = SHOWN[variant]
    batch = task.inputs.zeros(3)
    made = jax.eval_shape(lambda key: task.init(key, batch), jax.random.key(0))
    out = jax.eval_shape(lambda made: task.predict(*made, batch), made)
    assert task.modalities == modalities
    assert out["logits"].shape == out["probability"].shape == (3, classes)


@pytest.mark.parametrize("variant", CLIPS)
def test_the_single_stage_trains_as_long_as_the_two(variant, request):
    two = build(get_config("umbenet", variant, request)).stages
    (single,) = build(get_config("umbenet", f"{variant},single", request)).stages
    # Of one modality there is one stage: nothing is ever missing.
    names = ["missing"] if len(SHOWN[variant][0]) == 1 else ["unimodal", "missing"]
    assert [stage.name for stage in two] == names and single.name == "missing"
    assert single.rules.epochs == sum(stage.rules.epochs for stage in two)
    assert single.rules.batch_size == two[-1].rules.batch_size


@pytest.mark.parametrize("variant", FROZEN)
def test_what_the_paper_says_of_training(variant, request):
    """Batch 16, Adam at 2e-3, times 0.6 after three epochs, to 1e-7 or 80 % of the training set."""
    for stage in build(get_config("umbenet", variant, request)).stages:
        assert stage.rules.batch_size == 16
        rule = dataclasses.asdict(stage.optim)
        assert (rule["name"], rule["learning_rate"]) == ("adam", 2e-3)
        assert (rule["plateau_patience"], rule["plateau_factor"]) == (3, 0.6)
        assert rule["stop_rate"] == 1e-7
    assert stage.rules.stop_accuracy == 0.8


@pytest.mark.parametrize("variant", FROZEN)
def test_frozen_towers_need_weights(variant):
    message = r"frozen has text_tower, but weights is empty; give a .*folder with weights"
    with pytest.raises(InputError, match=message):
        build(module("umbenet").get_config(variant))


@pytest.mark.parametrize("variant", FROZEN)
def test_with_weights_the_towers_are_theirs_and_do_not_train(variant, clip_folder):
    task = build(given_weights(module("umbenet").get_config(variant), clip_folder))
    batch = task.inputs.zeros(2)
    params = jax.eval_shape(lambda key: task.init(key, batch)[0], jax.random.key(0))
    pretrained = task.assembly.pretrained
    assert set(pretrained) == {"text_tower", "image_tower"}
    for name, tree in pretrained.items():
        theirs = jax.tree.map(lambda x: x.shape, tree)
        assert jax.tree.map(lambda x: x.shape, dict(params[name])) == theirs
    for stage in task.stages:
        frozen = {name for name in params if not stage.trains(f"{name}/kernel")}
        assert frozen == set(pretrained)


@pytest.mark.parametrize("variant", FROZEN)
def test_with_lora_towers_of_frames_and_sound_train_by_it_alone(variant, request):
    task = build(get_config("umbenet", f"{variant},lora", request))
    batch = task.inputs.zeros(2)
    params = jax.eval_shape(lambda key: task.init(key, batch)[0], jax.random.key(0))
    assert set(params["lora"]) == {"image_tower", "audio_clap"}
    for stage in task.stages:
        frozen = {name for name in params if not stage.trains(f"{name}/kernel")}
        assert frozen == {"text_tower", "image_tower", "audio_clap"}
        assert stage.trains("lora/image_tower/blocks/query/kernel/a")
        assert stage.optim.learning_rate == 5e-4


@pytest.mark.parametrize("key", ["weights", "clap_weights"])
def test_lora_needs_the_weights_of_both_towers(key, request):
    config = get_config("umbenet", "dfew,lora", request)
    config.model[key] = ""
    whole = config_dict.ConfigDict(run_config.choose(config, given=()))
    with pytest.raises(InputError, match=rf"{key}\"? is empty"):
        build(whole)


@pytest.mark.parametrize("variant", [v for v in CLIPS if v not in FROZEN])
def test_lora_is_for_what_has_weights(variant):
    with pytest.raises(InputError, match=r"no variant; allowed with ',lora': dfew, ferv39k, mafw"):
        module("umbenet").get_config(f"{variant},lora")


def test_small_images_beside_the_words_of_weights(clip_folder):
    """`vision` is "conv" there: of the folder, the tower of text alone is used."""
    config = given_weights(module("umbenet").get_config("clips"), clip_folder)
    assert config.data.tokenizer == str(clip_folder)
    assert set(build(config).assembly.pretrained) == {"text_tower"}


class Noted:
    """A dataclass whose fields note that somebody asked for them."""

    def __init__(self, cls, monkeypatch):
        names, self.asked, self.cls = {f.name for f in dataclasses.fields(cls)}, set(), cls

        def noting(instance, name):
            self.asked |= {name} & names
            return object.__getattribute__(instance, name)

        self.fields = names
        # Its own checks, which ask for much, are not a use.
        monkeypatch.setattr(cls, "__post_init__", lambda instance: None, raising=False)
        monkeypatch.setattr(cls, "__getattribute__", noting, raising=False)


# Read by the loop, once an epoch or at the end of a stage, not in what is compiled of a step.
BY_THE_LOOP = re.compile(
    r"optim[.](average_decay|plateau_patience|plateau_factor|stop_rate)"
    r"|stages[.].*(epochs|batch_size|batch_sizes.*|select|patience|stop_accuracy)"
    r"|stages[.].*(transfer_threshold|top|selective|cycle|unit|length|order)"
    # Once there is a bank of concepts, see tests/tasks.
    r"|model.guided[.](concepts|count|generalize|weight|reduce)"
)


def another(key, value):
    """Returns another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return 2 * value or 1
    if isinstance(value, float):
        return value / 2 or 1.0
    if isinstance(value, dict):
        return {m: another(key, x) for m, x in value.items()} or {"text": 0.5}
    if isinstance(value, tuple) and value and not isinstance(value[0], str):
        return tuple(another(key, x) for x in value)
    return ("text",) if isinstance(value, tuple) else "another"


def fingerprint(config):
    """Returns all that is compiled of the steps of a config's stages, in words."""
    whole = run_config.resolve(config)
    data = run_config.data_sets(whole)
    inputs = {name: inputs_of(own) for name, own in data.items()}
    said = []
    for stage in base.build(whole, inputs, None).stages:
        batch = base.zeros(inputs, stage.data_sets)
        batch = batch if stage.turns is None else dict(batch) | {"turn": np.int32(0)}
        key = jax.eval_shape(lambda: jax.random.key(0))
        made = jax.eval_shape(lambda key, s=stage, b=batch: s.init(key, b), key)
        rate = optim.schedule(stage.optim, stage.rules.epochs, 3)
        tx = optim.optimizer(stage.optim)
        said += [str(rate(np.arange(9))), str(stage.settings)]

        def step(made, key, s=stage, b=batch, tx=tx):
            loss = lambda params: s.loss(params, made[1], b, key, **s.settings)[0]  # noqa: E731
            updates = tx.update(made[0], tx.init(made[0]), made[0])[0]
            return loss(made[0]), updates

        start = functools.partial(stage.init, batch=batch)
        for traced in (jax.make_jaxpr(start)(key), jax.make_jaxpr(step)(made, key)):
            said.append(re.sub(r"0x[0-9a-f]+", "", str(traced)))
    return said


@pytest.mark.slow
@pytest.mark.parametrize(("name", "argument"), [("mcr", "own,small"), ("mult", "own")])
def test_every_key_changes_what_is_compiled_or_is_refused(name, argument):
    config = configs.plain(module(name).get_config(argument))
    config["model"]["layers"] = 1
    whole = run_config.resolve(config)
    before, unread = fingerprint(config), []
    for key, value in leaves(whole):
        section = key.split(".")[0]
        if section not in ("model", "optim", "stages") or BY_THE_LOOP.fullmatch(key):
            continue
        changed = copy.deepcopy(whole)
        *above, last = key.split(".")
        functools.reduce(lambda part, k: part[k], above, changed)[last] = another(key, value)
        try:
            if fingerprint(changed) == before:
                unread.append(key)
        except (InputError, ValueError, TypeError):
            continue  # it was looked at
    assert unread == []


def leaves(section, prefix=""):
    """Returns the keys with their values, those that hold numbers by modality as one."""
    for key, value in section.items():
        if isinstance(value, dict) and key not in (
            "kernels",
            "input_dropout",
            "coincidence",
            "batch_sizes",
        ):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def test_every_key_of_data_is_read(monkeypatch, own, scores, tmp_path):
    """Each key of `config.data` is asked for while data of its kind is opened and read."""
    note = Noted(data_config.DataConfig, monkeypatch)
    clips = raw_files(tmp_path / "clips")
    sequences = {"name": "own", "dir": str(own), "kfold": 3, "fold": "1", "share": 0.5}
    sequences |= {"missing_pattern": "text", "missing_rate": 0.5, "without": ()}
    for section in (
        sequences,
        {"name": "own", "dir": str(own), "valid": "holdout", "holdout": 0.2, "class_map": ""},
        {"name": "own", "dir": str(scores), "threshold": 0.0},
        {"name": "clips", "dir": str(clips), "view": "clips", "detector": "none"},
    ):
        values = section | {"cache_dir": str(tmp_path / "cache")}
        data = Dataset(data_config.read(values, ("",), (data_config.FewerClasses,))[""])
        for role in ("train", "valid", "test"):
            part = data.part(role)
            data.fits(part, training=True)
            data.arrays(part)
            list(data.stream(part, [np.zeros(1, np.int32)], epoch=0))
        data.save_missing(tmp_path)
    # What a run does with folds and with --mode=eval: tests/test_folds.py, test_evaluate.py.
    assert note.fields - note.asked == {"folds", "split"}


def test_every_field_of_umbenet_is_used(monkeypatch, clip_folder):
    model = Noted(assembly.ModelConfig, monkeypatch)
    stage = Noted(umbenet.UMBEnetStage, monkeypatch)
    rank, added = (Noted(cls, monkeypatch) for cls in (assembly.Rank, adaptation.Adaptation))
    changes = (
        {},
        {"vision": "clip", "flip": 0.5, "gain_db": 1.0},
        {"vision": "clip", "weights": str(clip_folder), "lora_rank": 2},
        {"vision": "clip", "weights": str(clip_folder)},
    )
    for change in changes:
        config = module("umbenet").get_config("clips")
        config.data.image_size = CLIP_SIZE
        config.model.update(change)
        task = build(config)
        batch = task.inputs.zeros(2)
        key = jax.eval_shape(lambda: jax.random.key(0))
        made = jax.eval_shape(lambda key: task.init(key, batch), key)  # noqa: B023
        loss = functools.partial(task.stages[0].loss, **task.stages[0].settings)
        jax.eval_shape(lambda made, key: loss(*made, batch, key), made, key)  # noqa: B023
    config.model.update(text="bert", weights="")
    with pytest.raises(InputError, match=r"bert_weights.* is empty"):
        build(config)
    assert model.asked == model.fields
    assert stage.asked == stage.fields
    assert added.asked == added.fields and rank.fields == {"lora_rank"}


NOT_FROM_0 = re.compile(r"model\.|.*(share|kfold)$")


@pytest.mark.parametrize("file", ["mcr", "umbenet", "supramodal"])
def test_no_number_is_negative_or_infinite(file):
    """Those of a model are its network's own."""
    config = run_config.resolve(runpy.run_path(str(FOLDER / f"{file}.py"))["get_config"]("synth"))
    taken = []
    for key, value in configs.flatten(config).items():
        kind = type(value)
        if kind not in (int, float) or key.startswith("model."):
            continue
        for bad in (-1,) if kind is int else (-1.0, math.nan, math.inf):
            changed = copy.deepcopy(config)
            *sections, last = key.split(".")
            functools.reduce(dict.__getitem__, sections, changed)[last] = bad
            with contextlib.suppress(InputError):
                run_config.resolve(changed)
                taken.append((key, bad))
    assert taken == []


# ---- values that no model has -------------------------------------------------------------------

BEYOND = [
    ("mcr", "heads", 3), ("mcr", "heads", 0), ("mcr", "width", 7), ("mcr", "layers", -1),
    ("mcr", "kernels", {"text": 0}), ("mcr", "targets", ("x",)), ("mcr", "name", 3),
    ("mcr", "relu_dropout", 1.0), ("mult", "heads", 7), ("mult", "kernels", {"audio": -1}),
    ("umbenet", "gate_hidden", 0), ("umbenet", "image_channels", ("x",)), ("umbenet", "width", 0),
    ("umbenet", "temporal_heads", 0), ("umbenet", "dropout", -0.1), ("umbenet", "moments", -1),
    ("umbenet", "pool_size", 10**12),
]  # fmt: skip


@pytest.mark.parametrize(("file", "key", "value"), BEYOND, ids=str)
def test_a_value_that_no_model_has_is_one_sentence(file, key, value, request):
    config = get_config(file, "synth", request)
    config.model.unlock()
    with config.model.ignore_type():
        config.model[key] = value
    with pytest.raises(InputError):
        whole = run_config.resolve(config)
        task = build(whole)
        batch = task.inputs.zeros(2)
        jax.eval_shape(lambda key: task.stages[-1].init(key, batch), jax.random.key(0))
