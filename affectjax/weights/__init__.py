"""Pretrained weights: local Hugging Face folders to the parameters of `affectjax.models`."""

from affectjax.weights.folder import checksum
from affectjax.weights.from_bert import BertWeights, bert
from affectjax.weights.from_clip import ClipWeights, clip

__all__ = ["BertWeights", "ClipWeights", "bert", "checksum", "clip"]
