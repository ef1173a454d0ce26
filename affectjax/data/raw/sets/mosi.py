"""CMU-MOSI: opinion videos, a sentiment score from -3 to 3 a segment (Zadeh et al. 2016).

Ids come as `video_3`, `video[3]`, `video$_$3` or `video[start-end]`: the group is the video.
"""

from affectjax.data.labels import LabelSpec
from affectjax.data.raw.dataset import SEGMENT, RawDataset

DATASET = RawDataset(
    labels=LabelSpec("score", low=-3.0, high=3.0),
    group=SEGMENT,
    sequence_files={
        True: ("mosi_data.pkl", "aligned_50.pkl", "Processed/aligned_50.pkl", "aligned.pkl", "."),
        False: (
            "mosi_data_noalign.pkl",
            "unaligned_50.pkl",
            "Processed/unaligned_50.pkl",
            "unaligned.pkl",
            ".",
        ),
    },
    gaps=None,  # of a folder of .csd: videos in no fold, or without a label
)
