"""Where a run is, as a checkpoint keeps it."""

import json

import numpy as np

from affectjax.training import progress
from affectjax.training.progress import Progress


def test_json_and_back_within_an_epoch():
    series = {"loss": np.array([[1.5, 0.1, 2.0]], np.float32)}
    place = Progress(stage=1, epoch=2, step=30)
    place.pause_epoch({"next_index": 3}, series)
    said = json.loads(json.dumps(place.to_json()))
    assert set(said) == {"stage", "epoch", "step", "finished", "stream", "series"}
    again = Progress.from_json({**said, "metrics_bytes": 7})
    np.testing.assert_array_equal(again.series["loss"], series["loss"])
    assert again.steps_of_epoch == 3 and again.stream == {"next_index": 3}
    assert (again.stage, again.epoch, again.step, again.finished) == (1, 2, 30, False)


def test_an_epoch_and_a_stage_end():
    place = Progress(epoch=3, step=12)
    place.pause_epoch({"next_index": 1}, {"loss": np.ones((2, 1))})
    place.end_steps(4)
    assert (place.step, place.stream, place.series, place.steps_of_epoch) == (16, None, {}, 0)
    place.begin_stage(1)
    assert (place.stage, place.epoch, place.step) == (1, 0, 16)


def test_means_over_an_epoch_are_weighted_and_the_rate_is_the_last():
    series = {
        "loss": np.array([[1.0, 3.0, 9.0]]),
        "learning_rate": np.array([[0.5, 0.25, 0.125]]),
        "examples": np.array([[8.0, 8.0, 0.0]]),
    }
    parts = [{}, {k: v[:, :2] for k, v in series.items()}, {k: v[:, 2:] for k, v in series.items()}]
    whole = progress.concatenate(parts)
    assert progress.epoch_means(whole, 0) == {"loss": 2.0, "learning_rate": 0.125}
