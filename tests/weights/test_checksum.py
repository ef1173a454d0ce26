"""The checksum of a folder's weights, of a ResNet too, and what a reader logs as not used."""

import dataclasses
import hashlib
import json
import logging

import numpy as np
from test_from_clap import whole_model
from test_from_resnet import resnet_model
from torch_towers import bert_model

from affectjax import weights


def flat(tree, at=""):
    """Yields path and array of each leaf of a tree."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from flat(value, f"{at}{name}/")
        else:
            yield f"{at}{name}", value


def digest(said, *trees):
    found = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    for tree in trees:
        for path, array in sorted(flat(tree)):
            found.update(f"{path} {array.shape}".encode() + array.astype("<f4").tobytes())
    return found.hexdigest()


def test_it_is_of_the_arguments_and_the_parameters(tmp_path):
    bert_model().save_pretrained(tmp_path)
    found = weights.bert(tmp_path)
    assert weights.checksum(found) == digest({"args": found.args, "missing": ()}, found.params)


def test_of_a_resnet_the_running_statistics_count_too(tmp_path):
    resnet_model().save_pretrained(tmp_path)
    found = weights.resnet(tmp_path)
    said = {name: getattr(found, name) for name in ("args", "mean", "std", "missing")}
    assert weights.checksum(found) == digest(said, found.params, found.batch_stats)
    stats = found.batch_stats["stem"]["norm"]
    moved = {"stem": {"norm": {**stats, "mean": stats["mean"] + np.float32(1)}}}
    other = dataclasses.replace(found, batch_stats={**found.batch_stats, **moved})
    assert weights.checksum(other) != weights.checksum(found)


def test_of_pixels_newer_folders_say_it_with_the_rest_of_the_processor(tmp_path):
    resnet_model().save_pretrained(tmp_path)
    said = {"image_processor": {"image_mean": [0.5, 0.25, 0.125], "image_std": [1, 2, 3]}}
    (tmp_path / "processor_config.json").write_text(json.dumps(said))
    found = weights.resnet(tmp_path)
    assert (found.mean, found.std) == ((0.5, 0.25, 0.125), (1.0, 2.0, 3.0))


def test_the_text_tower_of_clap_is_not_logged(tmp_path, caplog):
    whole_model().save_pretrained(tmp_path)
    with caplog.at_level(logging.INFO, logger="absl"):
        assert weights.clap(tmp_path).unused == ()
    assert "not used" not in caplog.text
