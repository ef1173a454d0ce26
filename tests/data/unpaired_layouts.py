"""Miniature folders of the sets that have one modality an example, for the tests of this folder.

Files of media are empty unless `image` or `sound` writes them: listing a data set opens none.
"""

import csv

import media_files
import numpy as np
from clip_layouts import touch

from affectjax.data.media import codec


def image(path, level=3, size=(100, 100), kind="png"):
    """Writes an image of one grey; `media_files.number` finds the level again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(codec.encode(media_files.grey(level, *size), kind))
    return path


def sound(
    path, seconds=0.5, *, rate=16000, channels=1, amplitude=0.5, codec="pcm_s16le", form="s16"
):
    """Writes a wav of one tone, the same in each channel."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tone = media_files.tone(seconds, rate, amplitude=amplitude)
    layout = {1: "mono", 2: "stereo", 5: "5.0"}[channels]
    return media_files.write(
        path,
        sound=np.tile(tone, (channels, 1)),
        sound_codec=codec,
        sound_rate=rate,
        layout=layout,
        form=form,
    )


def write(path, text, encoding="utf-8"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return path


def rafdb(basic, lines, pictures="aligned"):
    """Writes the list from its lines, and an empty image for each."""
    write(basic / "EmoLabel" / "list_patition_label.txt", "\n".join(lines) + "\n")
    ending = "_aligned.jpg" if pictures == "aligned" else ".jpg"
    for line in lines:
        touch(basic / "Image" / pictures / line.split(" ")[0].replace(".jpg", ending))
    return basic


def affectnet_tables(folder, train, valid):
    """Writes the two tables from (file, expression), other columns as published."""
    header = (
        "subDirectory_filePath",
        "face_x",
        "face_y",
        "face_width",
        "face_height",
        "facial_landmarks",
        "expression",
        "valence",
        "arousal",
    )
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (("training.csv", train), ("validation.csv", valid)):
        with (folder / name).open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(header)
            for path, expression in rows:
                writer.writerow((path, 1, 2, 90, 90, "1.5;2.5;3.5", expression, -0.1, 0.2))


def affectnet_arrays(folder, labels, dtype="<U1"):
    """Writes empty images and what the annotation of each says, by name."""
    (folder / "annotations").mkdir(parents=True)
    for name, label in labels.items():
        touch(folder / "images" / f"{name}.jpg")
        np.save(folder / "annotations" / f"{name}_exp.npy", np.array(label, dtype))


MELD_HEADER = (
    "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,"
    "Season,Episode,StartTime,EndTime\n"
)


def meld(path, rows, encoding="utf-8"):
    """Writes a table from (dialogue, utterance, emotion, text with its quotes)."""
    lines = [
        f'{n},{text},Joey,{emotion},neutral,{dialogue},{utterance},8,21,"00:16:16,059","00:16:21,731"\n'
        for n, (dialogue, utterance, emotion, text) in enumerate(rows, start=1)
    ]
    return write(path, MELD_HEADER + "".join(lines), encoding)


def iemocap(raw, rows):
    """Writes evaluations, transcripts and empty sounds from (utterance, code, sentence)."""
    dialogues = {}
    for name, code, text in rows:
        dialogues.setdefault(name.rpartition("_")[0], []).append((name, code, text))
    for dialogue, turns in dialogues.items():
        session = raw / f"Session{int(dialogue[3:5])}"
        said, meant = [], ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n"]
        for start, (name, code, text) in enumerate(turns):
            meant.append(
                f"[{start}.2901 - {start + 1}.2357]\t{name}\t{code}\t[2.5000, 2.5000, 2.5000]\n"
            )
            meant.append("C-E2:\tNeutral;\t()\nA-E3:\tval 3; act 2; dom  2;\t()\n\n")
            if text is not None:
                said.append(f"{name} [00{start}.2901-00{start + 1}.2357]: {text}\n")
            touch(session / "sentences" / "wav" / dialogue / f"{name}.wav")
        write(session / "dialog" / "EmoEvaluation" / f"{dialogue}.txt", "".join(meant))
        write(session / "dialog" / "transcriptions" / f"{dialogue}.txt", "".join(said), "latin-1")
    return raw
