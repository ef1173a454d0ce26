"""Config sections: what is known, what is not, and the sentence that says so."""

import dataclasses
import json

import flax.linen as nn
import pytest
from ml_collections import config_dict

from affectjax.errors import InputError
from affectjax.runtime import configs


@dataclasses.dataclass(frozen=True)
class Settings:
    rate: float
    epochs: int = 3
    names: tuple[str, ...] = ()

    def __post_init__(self):
        if self.epochs < 0:
            raise ValueError(f"epochs is {self.epochs}; allowed: 0 and more")


class Module(nn.Module):
    width: int = 8
    outputs: int = 1


def test_section_has_the_fields_with_their_defaults():
    section = configs.section(Settings, rate=0.5)
    assert section.to_dict() == {"rate": 0.5, "epochs": 3, "names": ()}
    assert isinstance(section, config_dict.ConfigDict)
    # A field without a default and without a value stays out; `read` then names it.
    assert configs.section(Settings).to_dict() == {"epochs": 3, "names": ()}


def test_section_of_a_module_leaves_out_what_is_given():
    assert configs.section(Module, "outputs", width=4).to_dict() == {"width": 4}
    assert configs.section(Module).to_dict() == {"width": 8, "outputs": 1}


def test_section_refuses_a_value_for_no_field():
    with pytest.raises(InputError, match=r'did you mean "Settings\.rate"'):
        configs.section(Settings, rat=0.5)
    with pytest.raises(InputError, match=r'"Module\.outputs"'):
        configs.section(Module, "outputs", outputs=2)


@pytest.mark.parametrize("kind", [dict, config_dict.ConfigDict])
def test_read(kind):
    read = configs.read(Settings, kind({"rate": 0.5, "names": ["a", "b"]}), "config.settings")
    assert read == Settings(0.5, 3, ("a", "b"))


READ_ERRORS = {
    "unknown": ({"rate": 1.0, "epoch": 2}, r'"config.s.epoch"; did you mean "config.s.epochs"\?'),
    "far": (
        {"rate": 1.0, "zzz": 2},
        r'"config.s.zzz"; the keys of "config.s" are epochs, names, rate',
    ),
    "missing": ({"epochs": 2}, 'config key "config.s.rate" is missing'),
    "nan": ({"rate": float("nan")}, r'"config.s.rate" is nan; allowed: a finite number'),
    "refused": ({"rate": 1.0, "epochs": -1}, r'"config.s": epochs is -1; allowed: 0 and more'),
}


@pytest.mark.parametrize(("section", "message"), READ_ERRORS.values(), ids=READ_ERRORS.keys())
def test_read_says_what_is_wrong(section, message):
    with pytest.raises(InputError, match=message):
        configs.read(Settings, section, "config.s")


def test_plain_is_dicts_and_tuples_all_the_way_down():
    config = config_dict.ConfigDict({"a": {"b": [1, [2, 3]]}, "c": ({"d": [4]},)})
    assert configs.plain(config) == {"a": {"b": (1, (2, 3))}, "c": ({"d": (4,)},)}
    assert type(configs.plain(config)["a"]) is dict


def test_top_level_is_complete_and_nothing_else():
    config = dict.fromkeys(configs.TOP_LEVEL)
    configs.check_top_level(config)
    with pytest.raises(InputError, match=r'"config\.optm"; did you mean "config\.optim"'):
        configs.check_top_level(config | {"optm": 1})
    del config["stages"]
    with pytest.raises(InputError, match=r'"config\.stages" is missing'):
        configs.check_top_level(config)


def test_seeds():
    assert configs.seeds({"seeds": (), "seed": 3}) == (3,)
    assert configs.seeds({"seeds": [2, 0], "seed": 0}) == (2, 0)
    assert configs.seeds({"seeds": (), "seed": 2**31 - 1}) == (2**31 - 1,)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ((1, 2, 1), "twice"),
        ((-1,), "integers 0 to"),
        ((2**31,), "integers"),
        ((0.5,), "integers"),
        (3, "tuple"),
    ],
)
def test_seeds_that_are_not_allowed(chosen, message):
    with pytest.raises(InputError, match=message):
        configs.seeds({"seeds": chosen, "seed": 0})


def test_a_seed_beside_seeds_is_refused():
    with pytest.raises(InputError, match=r'"config.seed" is 3 and "config.seeds" is \(0, 1\)'):
        configs.seeds({"seeds": (0, 1), "seed": 3})


def test_a_wrong_seed_is_named_by_its_own_key():
    with pytest.raises(InputError, match=r'"config\.seed"'):
        configs.seeds({"seeds": (), "seed": -1})


NESTED = {"a": {"b": 1, "c": {"d": (1, 2), "e": {}}}, "f": None}


@pytest.mark.parametrize("kind", [dict, config_dict.ConfigDict])
def test_flatten(kind):
    leaves = configs.flatten(kind(NESTED))
    assert leaves == {"a.b": 1, "a.c.d": [1, 2], "a.c.e": {}, "f": None}


def test_a_config_is_the_same_before_and_after_its_file():
    config = config_dict.ConfigDict(NESTED)
    assert configs.differences(config, json.loads(json.dumps(configs.plain(config)))) == []
    assert configs.differences(configs.plain(config), config) == []


@pytest.mark.parametrize("kind", [dict, config_dict.ConfigDict])
def test_differences_are_named(kind):
    theirs = {"a": {"b": 2, "c": {"d": [1, 2], "e": {}}}, "g": 0, "f": None}
    assert configs.differences(kind(NESTED), theirs) == [
        "a.b: now 1, there 2",
        "g: now 'not set', there 0",
    ]
