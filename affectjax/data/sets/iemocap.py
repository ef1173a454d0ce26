"""IEMOCAP as four yes-or-no tasks (Busso et al. 2008, in the form of Tsai et al. 2019).

The pickle does not name its label columns. The order neutral, happy, sad, angry is the one in which
MulT's published evaluation (`eval_iemocap`) prints them. To check a file: in its test split about
41 % of the examples are neutral, 14 % happy, 21 % sad and 24 % angry (the complement of what
answering "no" to everything scores in a published reproduction).

The group is the session (`Ses01`): both speakers of a dialogue are in it. The pickle has no ids, so
its examples are named by split and row, and each is a group of its own.
"""

from affectjax.data.labels import LabelSpec

LABELS = LabelSpec("binary", ("neutral", "happy", "sad", "angry"))
GROUP = r"^(Ses\d\d|.+)"
FILES = {
    True: ("iemocap_data.pkl", "."),
    False: ("iemocap_data_noalign.pkl", "."),
}
