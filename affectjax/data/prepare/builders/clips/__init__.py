"""The TFDS data set of clips: encoded frames, sound and transcript."""

from affectjax.data.prepare.builders.clips.clips_dataset_builder import Builder, write

__all__ = ["Builder", "write"]
