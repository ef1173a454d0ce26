"""Pretrained weights: local Hugging Face folders to the parameters of `affectjax.models`."""

from affectjax.weights.folder import checksum
from affectjax.weights.from_bert import BertWeights, bert
from affectjax.weights.from_clap import ClapWeights, clap
from affectjax.weights.from_clip import ClipWeights, clip
from affectjax.weights.from_resnet import ResNetWeights, resnet
from affectjax.weights.from_wav2vec2 import Wav2Vec2Weights, wav2vec2

__all__ = [
    "BertWeights",
    "ClapWeights",
    "ClipWeights",
    "ResNetWeights",
    "Wav2Vec2Weights",
    "bert",
    "checksum",
    "clap",
    "clip",
    "resnet",
    "wav2vec2",
]
