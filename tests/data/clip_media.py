"""Writes a tiny set of one's own clips: media of every kind, and the table of them."""

import csv

import media_files

from affectjax.data.media import codec

HEADER = ("id", "split", "label", "video", "audio", "text")
ROWS = (
    ("mia_1", "train", "glad", "whole.mp4", "", "What a day!"),
    ("mia_2", "train", "sad", "silent.mp4", "tone.wav", ""),
    ("mia_3", "train", "glad", "pictures", "", "Well."),
    ("tom_1", "valid", "sad", "face.png", "", ""),
    ("tom_2", "valid", "glad", "", "tone.wav", ""),
    ("tom_3", "test", "sad", "", "", "Only words."),
)


def table(folder, rows, header=HEADER):
    with (folder / "clips.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return folder


def raw_files(folder, rows=ROWS):
    """Writes tiny media of every kind, and the table of them."""
    folder.mkdir(parents=True)
    pictures = [media_files.grey(i) for i in range(6)]
    sound = media_files.tone(0.5, 16000)[None]
    media_files.write(folder / "whole.mp4", pictures, sound)
    media_files.write(folder / "silent.mp4", pictures)
    form = {"sound_codec": "pcm_s16le", "form": "s16"}
    media_files.write(folder / "tone.wav", sound=sound, **form)
    (folder / "pictures").mkdir()
    for i in range(3):
        name = folder / "pictures" / f"frame{i}.png"
        name.write_bytes(codec.encode(media_files.grey(i), "png"))
    (folder / "face.png").write_bytes(codec.encode(media_files.grey(9), "png"))
    return table(folder, rows)
