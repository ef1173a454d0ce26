"""Every variant of every file in configs/ builds its task, and each of its keys is read."""

import copy
import importlib.util
import itertools
from pathlib import Path

import jax
import pytest
from conftest import CLASSES

from affectjax.data.labels import LabelSpec
from affectjax.data.pipeline import DataConfig
from affectjax.errors import InputError
from affectjax.runtime import configs
from affectjax.runtime.parallel import ParallelConfig
from affectjax.tasks import base
from affectjax.train import TrainConfig

FOLDER = Path(__file__).parents[1] / "configs"
SEQUENCES = ("synth", "mosi", "mosei", "iemocap", "own")
# File: the variants, and the options that each may have.
VARIANTS = {
    "mcr": (SEQUENCES, ("aligned", "small")),
    "mult": (SEQUENCES, ("aligned",)),
}
SPECS = {
    "mosi": LabelSpec("score", low=-3, high=3),
    "mosei": LabelSpec("score", low=-3, high=3),
    "iemocap": LabelSpec("binary", ("neutral", "happy", "sad", "angry")),
}
MODALITIES = ("text", "audio", "vision")


def module(name):
    spec = importlib.util.spec_from_file_location(f"configs_{name}", FOLDER / f"{name}.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def every():
    """Returns (file, argument) of all variants with each subset of their options."""
    for name, (variants, options) in VARIANTS.items():
        for variant in variants:
            for size in range(len(options) + 1):
                for chosen in itertools.combinations(options, size):
                    yield name, ",".join((variant, *chosen))


def build(config):
    spec = SPECS.get(config["data"]["name"], LabelSpec("class", CLASSES))
    return base.find(config).Task(config, spec, MODALITIES, None)


def test_every_file_has_a_row_here():
    assert {f.stem for f in FOLDER.glob("*.py") if f.stem != "__init__"} == set(VARIANTS)


@pytest.mark.parametrize(("name", "argument"), list(every()), ids=":".join)
def test_a_variant_builds(name, argument):
    config = module(name).get_config(argument)
    configs.check_top_level(config)
    configs.read(ParallelConfig, config.parallel, "config.parallel")
    configs.read(TrainConfig, config.train, "config.train")
    data = configs.read(DataConfig, config.data, "config.data")
    assert data.aligned is ("aligned" in argument)
    task = build(config)
    assert len(task.stages) == len(config.stages) and set(task.modalities) <= set(MODALITIES)
    for stage in task.stages:
        assert stage.epochs > 0 and stage.batch_size > 0
        assert stage.trains("any/kernel") in (True, False)


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
    _, options = VARIANTS[name]
    get_config = module(name).get_config
    for option in options:
        plain, chosen = (get_config(a).to_dict() for a in ("own", f"own,{option}"))
        assert configs.differences(plain, chosen), option


def sections(config):
    """Returns the sections whose keys a task reads."""
    return [config["model"], config["optim"], *config["stages"].values()]


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
            with pytest.raises(InputError, match=key):
                build(other)


@pytest.mark.parametrize(
    ("name", "section"), list(itertools.product(VARIANTS, ("model", "stages")))
)
def test_another_key_is_refused_with_the_nearest(name, section):
    config = module(name).get_config()
    with config.unlocked():
        if section == "model":
            config.model.widht = 3
        else:
            config.stages.trian = config.stages.train
    expected = {"model": 'config.model.widht".*"config.model.width', "stages": "trian.*train"}
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


def test_building_touches_no_device(monkeypatch):
    monkeypatch.setattr(jax, "devices", lambda *_: pytest.fail("a device was asked for"))
    build(module("mcr").get_config())
