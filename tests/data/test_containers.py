"""What a container says of itself: turns, shapes of pixels, times, tracks, covers, and damage."""

import struct
import types
from fractions import Fraction

import av
import media_files as files
import numpy as np
import pytest

from affectjax.data.clip import Clip
from affectjax.data.media import containers, decoding
from affectjax.data.prepare.clip_storage import Storage, decode
from affectjax.errors import InputError

WAV = {"sound_codec": "pcm_s16le", "form": "s16"}
PCM = {"pcm_s16le": "s16"}


def greys(count):
    return [files.grey(i) for i in range(count)]


def corners(height=48, width=64):
    """Returns `[H, W, 3]`: one corner of each of four colours."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[: height // 2, : width // 2] = (220, 0, 0)
    picture[: height // 2, width // 2 :] = (0, 220, 0)
    picture[height // 2 :, : width // 2] = (0, 0, 220)
    picture[height // 2 :, width // 2 :] = (200, 200, 200)
    return picture


def noted(path):
    """Returns what is said of a file that is read as a whole."""
    kind = "video" if decoding.has_video(path) else "audio"
    storage = Storage(image_size=8, image_encoding="png")
    return list(decode(Clip("a", None, "", **{kind: path}), storage, None, False).notes)


# A place (x, y) is shown at (ax + cy, bx + dy): of each matrix, the picture by hand.
MATRICES = {
    "as it is": ((1, 0, 0, 1), lambda x: x),
    "mirrored": ((-1, 0, 0, 1), lambda x: x[:, ::-1]),
    "upside down": ((1, 0, 0, -1), lambda x: x[::-1]),
    "half a turn": ((-1, 0, 0, -1), lambda x: x[::-1, ::-1]),
    "clockwise": ((0, 1, -1, 0), lambda x: np.rot90(x, 3)),
    "anticlockwise": ((0, -1, 1, 0), lambda x: np.rot90(x, 1)),
    "transposed": ((0, 1, 1, 0), lambda x: x.transpose(1, 0, 2)),
    "transposed and turned": ((0, -1, -1, 0), lambda x: np.rot90(x.transpose(1, 0, 2), 2)),
}


@pytest.mark.parametrize("name", MATRICES)
def test_every_way_to_turn_and_to_mirror(tmp_path, name):
    matrix, expected = MATRICES[name]
    path = files.turn(files.write(tmp_path / "a.mp4", [corners()] * 2), *matrix)
    found = decoding.video(path, 1)[0]
    assert found.shape == expected(corners()).shape
    assert np.abs(found.astype(int) - expected(corners())).mean() < 5


@pytest.mark.parametrize(
    ("aspect", "size"), [((2, 1), (48, 128)), ((1, 2), (96, 64)), ((64, 45), (48, 91))]
)
def test_pixels_become_square(tmp_path, aspect, size):
    path = files.write(tmp_path / "a.mkv", greys(3), aspect=aspect)
    found = decoding.video(path, 2)
    assert found.shape == (2, *size, 3) and files.number(found) == [0, 2]
    assert decoding.timeline(path, 1, 0.0, 1.0).frames.shape == (1, *size, 3)
    assert noted(path) == []


def test_pixels_that_nobody_believes(tmp_path):
    path = files.write(tmp_path / "a.mkv", greys(1), aspect=(10, 1))
    assert decoding.video(path, 1).shape == (1, 48, 64, 3)
    assert noted(path) == ["a.mkv says that its pixels are 10 times as wide as high: ignored"]


def heic(path, kind):
    """Writes the head of a picture whose first item is of a kind."""
    infe = b"infe" + struct.pack(">IHH4s", 2 << 24, 1, 0, kind) + b"\0"
    path.write_bytes(struct.pack(">I4s4sI", 16, b"ftyp", b"heic", 0) + b"\0\0\0\x40meta" + infe)
    return path


def test_a_picture_of_tiles_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"a\.heic: is a picture of several tiles.*as jpg or png"):
        decoding.frames(heic(tmp_path / "a.heic", b"grid"), 1)
    with pytest.raises(InputError, match=r"b\.heic: cannot be read as video"):
        decoding.frames(heic(tmp_path / "b.heic", b"hvc1"), 1)


# Times


def broken_sound(path, shifts, rate=16000, codec="pcm_s16le"):
    """Writes 1000 samples a frame, with a click at the start of each; `shifts` moves its time."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout="mono")
        for k, shift in enumerate(shifts):
            block = np.zeros((1, 1000), np.int16)
            block[0, :10] = 20000
            frame = av.AudioFrame.from_ndarray(block, format="s16", layout="mono")
            frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
            frame.pts = 1000 * k + round(shift * rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def clicks(sound):
    """Returns the places where clicks begin, in samples."""
    loud = np.abs(sound) > 0.2
    return np.flatnonzero(loud & ~np.r_[False, loud[:-1]])


def test_sound_stands_at_its_times(tmp_path):
    path = broken_sound(tmp_path / "a.mkv", [0] * 4 + [1.0] * 4)
    expected = [0, 1000, 2000, 3000, 20000, 21000, 22000, 23000]
    assert np.abs(clicks(decoding.audio(path)) - expected).max() <= 16
    assert len(decoding.timeline(path, 1, 0.0, 5.0).audio) == 24000
    found = clicks(decoding.timeline(path, 1, 1.2, 2.0).audio)
    assert np.abs(found - (np.array(expected[4:]) - 19200)).max() <= 16
    assert len(decoding.audio(path, 0.5)) == 8000
    assert noted(path) == ["a.mkv has gaps in its sound, 1.0 s together: silence is heard"]


@pytest.mark.parametrize(
    "shifts",
    [
        [0, 0.03, -0.03, 0.02, 0, 0.04, 0, 0],  # written in haste
        [0, 0, 0, 0, 90000.0, 90000.0, 90000.0, 90000.0],  # another clock
    ],
)
def test_sound_whose_times_are_no_gap(tmp_path, shifts):
    path = broken_sound(tmp_path / "a.mkv", shifts)
    assert np.array_equal(clicks(decoding.audio(path)), 1000 * np.arange(8))


def test_a_leap_of_the_clock_makes_no_endless_file(tmp_path):
    path = broken_sound(tmp_path / "a.mkv", [0] * 7 + [1e6])
    assert decoding.duration(path) == pytest.approx(7000 / 16000, abs=0.01)
    assert any("leap by more than an hour" in note for note in noted(path))


def test_where_stretches_of_sound_begin():
    frame = types.SimpleNamespace(samples=100, sample_rate=1000)
    # A tenth of a second each: no gap, a step back, a gap of 0.3 s, a clock that begins anew.
    times = [5.0, 5.1, 5.12, 5.3, 5.7, 5.8, 0.0, 0.1, 0.5]
    stretches = decoding._Stretches()
    found = [stretches.begin(time, frame) for time in times]
    assert found == pytest.approx([0, 0, 0, 0, 0.7, 0.7, 0.7, 0.7, 1.4])


def test_a_gap_takes_no_more_memory_than_allowed(tmp_path):
    path = broken_sound(tmp_path / "a.mkv", [0] * 4 + [3000.0])
    with pytest.raises(InputError, match="its sound: would take 183 MiB of memory; allowed: 8"):
        decoding.audio(path, largest_mib=1)


# Tracks


def two_tracks(path, default, kind="audio"):
    """Writes two sounds, or two pictures beside a sound; one of them is the default."""
    with av.open(str(path), "w") as container:
        streams = []
        for number in range(2):
            if kind == "audio":
                stream = container.add_stream("pcm_s16le", rate=16000, layout="mono")
            else:
                stream = container.add_stream("mpeg4", rate=10)
                stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
            flag = av.stream.Disposition.default
            stream.disposition = flag if number == default else av.stream.Disposition(0)
            streams.append(stream)
        for number, stream in enumerate(streams):
            if kind == "audio":
                sound = np.full(16000, 0.2 + 0.4 * number, np.float32)
                frames = files.sound_frames(sound, 16000, "mono", "s16")
            else:
                frames = files.video_frames([files.grey(5 + 10 * number)] * 3)
            for frame in (*frames, None):
                container.mux(stream.encode(frame))
    return path


@pytest.mark.parametrize("default", [0, 1])
def test_the_default_track_is_used(tmp_path, default):
    path = two_tracks(tmp_path / "a.mkv", default)
    assert decoding.audio(path).mean() == pytest.approx(0.2 + 0.4 * default, abs=1e-3)
    assert decoding.timeline(path, 1, 0.2, 0.4).audio.mean() == pytest.approx(
        0.2 + 0.4 * default, abs=1e-3
    )
    assert noted(path) == [f"a.mkv has 2 tracks of sound: number {default + 1} is used"]
    path = two_tracks(tmp_path / "b.mkv", default, "video")
    assert files.number(decoding.video(path, 1)) == [5 + 10 * default]
    assert noted(path)[0] == f"b.mkv has 2 tracks of pictures: number {default + 1} is used"


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a.avi"])
def test_a_cover_is_no_video_though_nothing_marks_it(tmp_path, name):
    codec = {"a.mkv": "pcm_s16le", "a.avi": "pcm_s16le"}.get(name, "aac")
    how = {"sound_codec": codec, "form": PCM.get(codec, "fltp")}
    path = files.write(tmp_path / name, greys(1), files.tone(1, 16000), codec="mjpeg", **how)
    assert not decoding.has_video(path) and len(decoding.audio(path)) >= 16000
    assert noted(path) == []
    moving = files.write(
        tmp_path / f"b{name}", greys(2), files.tone(1, 16000), codec="mjpeg", **how
    )
    assert decoding.has_video(moving)
    still = files.write(tmp_path / f"c{name}", greys(1), codec="mjpeg")
    assert decoding.has_video(still)


# Damage


def noisy(path, share=2 / 3):
    """Puts noise in place of what stands after a share of a file."""
    data = bytearray(path.read_bytes())
    start = int(len(data) * share)
    data[start:] = np.random.default_rng(0).integers(0, 256, len(data) - start, np.uint8).tobytes()
    path.write_bytes(data)
    return path


def noise(count, height=48, width=64):
    return np.random.default_rng(1).integers(0, 256, (count, height, width, 3), np.uint8)


def sound(path, codec):
    wave = np.random.default_rng(2).uniform(-0.5, 0.5, 48000).astype(np.float32)
    form = {"flac": "s16", "pcm_s16le": "s16"}.get(codec, "fltp")
    return files.write(path, sound=wave, sound_codec=codec, form=form)


@pytest.mark.parametrize(
    ("name", "codec", "words"),
    [
        ("a.mkv", "mpeg4", "a.mkv ends after"),
        ("a.ts", "mpeg4", "a.ts holds nothing"),
        ("a.avi", "mpeg4", "a.avi ends after"),
        ("a.mp3", "libmp3lame", "a.mp3 is damaged"),
        ("a.flac", "flac", "a.flac ends after"),
    ],
)
def test_noise_in_the_last_third_is_noted(tmp_path, name, codec, words):
    if codec == "mpeg4":
        path = files.write(tmp_path / name, noise(40), codec="mpeg4", options={"g": "5"})
    else:
        path = sound(tmp_path / name, codec)
    assert noted(path) == []
    notes = noted(noisy(path))
    assert any(words in note for note in notes), notes


def test_packets_that_do_not_decode_are_counted(tmp_path):
    blocks = [files.encode(files.grey(i), "mjpeg") for i in range(6)]
    for place in (0, 3):
        blocks.insert(place, b"garbage" * 20)
    path = files.packets(tmp_path / "a.mkv", "mjpeg", blocks)
    assert noted(path) == ["a.mkv is damaged: 2 of 9 packets of its video cannot be decoded"]


def test_nothing_is_gathered_outside(tmp_path):
    containers.note(tmp_path, "is lost")
    with containers.noting() as notes:
        assert notes == []
