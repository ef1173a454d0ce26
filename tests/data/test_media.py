import struct
import tracemalloc
import zlib

import av
import cv2
import media_files as files
import numpy as np
import pytest

from affectjax.data.media import containers, decoding
from affectjax.errors import InputError

CODECS = {"a.mp4": "libx264", "a.avi": "mpeg4", "a.mkv": "libx264", "a.webm": "libvpx"}
GOP = {"g": "10"}  # a key frame every second


def greys(count):
    return [files.grey(i) for i in range(count)]


# Places


@pytest.mark.parametrize(
    ("total", "count", "expected"),
    [
        (30, 3, [5, 15, 25]),
        (6, 3, [1, 3, 5]),
        (7, 2, [1, 5]),  # segments [0, 3.5) and [3.5, 7): middles at 1.75 and 5.25
        (9, 1, [4]),
        (3, 3, [0, 1, 2]),
        (2, 16, [0, 1]),
        (0, 4, []),
    ],
)
def test_middles(total, count, expected):
    assert decoding.middles(total, count) == expected


def test_middles_needs_a_count():
    with pytest.raises(InputError, match="number of frames is 0; allowed: 1 or more"):
        decoding.middles(5, 0)


# Images


def test_image_is_rgb_whatever_was_stored(tmp_path):
    red = np.zeros((6, 8, 3), np.uint8)
    red[..., 2] = 200  # OpenCV's order is BGR
    for name in ("a.png", "a.bmp"):
        cv2.imwrite(str(tmp_path / name), red)
        assert decoding.image(tmp_path / name).tolist() == red[..., ::-1].tolist()
    cv2.imwrite(str(tmp_path / "grey.PNG"), red[..., 2])
    assert (decoding.frames(tmp_path / "grey.PNG", 16) == 200).all()
    assert decoding.frames(tmp_path / "grey.PNG", 16).shape == (1, 6, 8, 3)


def test_image_is_turned_by_its_exif_orientation(tmp_path):
    picture = np.zeros((16, 32, 3), np.uint8)
    picture[:8] = 255  # bright above
    jpeg = cv2.imencode(".jpg", picture)[1].tobytes()
    tiff = (
        b"MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00"
        + b"\0" * 4
    )
    exif = b"Exif\x00\x00" + tiff
    head = b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif
    (tmp_path / "a.jpg").write_bytes(jpeg[:2] + head + jpeg[2:])
    turned = decoding.image(
        tmp_path / "a.jpg"
    )  # orientation 6: show it turned 90 degrees clockwise
    assert turned.shape == (32, 16, 3)
    assert turned[:, 12:].min() > 240 and turned[:, :4].max() < 15


def test_folder_in_natural_order_without_hidden_and_other_files(tmp_path):
    for i, name in enumerate(("frame1.png", "frame2.PNG", "frame10.bmp", "frame011.png")):
        cv2.imwrite(str(tmp_path / name), files.grey(i))
    cv2.imwrite(str(tmp_path / ".frame0.png"), files.grey(20))
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "frame3").mkdir()
    assert files.number(decoding.folder(tmp_path, 16)) == [0, 1, 2, 3]
    assert files.number(decoding.frames(tmp_path, 2)) == [1, 3]


def test_folder_of_mixed_sizes_is_fitted_to_the_first(tmp_path):
    cv2.imwrite(str(tmp_path / "1.png"), files.grey(30, 20, 40))
    cv2.imwrite(str(tmp_path / "2.png"), files.grey(30, 40, 40))
    found = decoding.folder(tmp_path, 4)
    assert found.shape == (2, 20, 40, 3)
    assert (found[0] == 240).all()
    assert (found[1, :, 10:30] == 240).all() and not found[1, :, :10].any()
    assert not found[1, :, 30:].any()


def test_fit_averages_areas_and_keeps_the_aspect_ratio():
    x = np.zeros((4, 8, 3), np.uint8)
    x[::2] = 100
    small = decoding.fit(x, 4, 4)
    assert small[1:3].tolist() == np.full((2, 4, 3), 50).tolist()
    assert not small[0].any() and not small[3].any()
    assert decoding.fit(x, 4, 8) is x
    large = decoding.fit(np.full((2, 2, 3), 7, np.uint8), 4, 10)
    assert (large[:, 3:7] == 7).all() and large.sum() == 7 * 4 * 4 * 3


# Video


@pytest.mark.parametrize("name", CODECS)
def test_video_takes_the_middle_of_each_segment(tmp_path, name):
    path = files.write(tmp_path / name, greys(30), codec=CODECS[name], options=GOP)
    found = decoding.video(path, 3)
    assert found.shape == (3, 48, 64, 3) and found.dtype == np.uint8
    assert files.number(found) == [5, 15, 25]
    assert files.number(decoding.frames(path, 64)) == list(range(30))
    assert decoding.has_video(path) and decoding.audio(path) is None
    assert decoding.duration(path) == pytest.approx(3.0, abs=0.11)


def test_video_of_one_frame(tmp_path):
    path = files.write(tmp_path / "a.mp4", greys(1))
    assert decoding.video(path, 16).shape == (1, 48, 64, 3)
    assert decoding.timeline(path, 16, 0.0, 5.0).frames.shape == (1, 48, 64, 3)


def test_video_of_variable_rate_counts_frames_not_seconds(tmp_path):
    times = [0, 1, 2, 3, 50, 100]
    path = files.write(tmp_path / "a.mp4", greys(6), times=times)
    assert files.number(decoding.video(path, 3)) == [1, 3, 5]


@pytest.mark.parametrize(
    ("matrix", "turns"), [((0, 1, -1, 0), 3), ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 1)]
)
def test_video_is_turned_as_the_container_says(tmp_path, matrix, turns):
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[:16] = 255
    path = files.turn(files.write(tmp_path / "a.mp4", [picture] * 2), *matrix)
    found = decoding.video(path, 1)[0]
    assert np.abs(found.astype(int) - np.rot90(picture, turns)).mean() < 3
    assert np.array_equal(found, cv2.VideoCapture(str(path)).read()[1][..., ::-1])


def test_video_counts_what_decodes_when_the_number_of_packets_is_wrong(tmp_path):
    blocks = [files.encode(files.grey(i), "mjpeg") for i in range(6)]
    for place in (0, 2, 3, 7):
        blocks.insert(place, b"garbage" * 20)
    path = files.packets(tmp_path / "a.mkv", "mjpeg", blocks)
    assert files.number(decoding.video(path, 3)) == [1, 3, 5]
    assert files.number(decoding.video(path, 16)) == [0, 1, 2, 3, 4, 5]


def test_video_that_changes_size_keeps_that_of_its_first_frame(tmp_path):
    blocks = [
        files.encode(files.grey(i + 1, *size), "mjpeg")
        for i, size in enumerate([(48, 64), (24, 32)])
    ]
    path = files.packets(tmp_path / "a.mkv", "mjpeg", blocks)
    found = decoding.video(path, 4)
    assert found.shape == (2, 48, 64, 3) and files.number(found) == [1, 2]


def test_video_cut_in_the_middle_gives_the_frames_before_the_cut(tmp_path):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (30, 48, 64, 3), np.uint8)  # so that each frame has its bytes
    path = files.write(tmp_path / "a.mkv", noise, codec="mjpeg")
    whole = decoding.video(path, 64)
    data = path.read_bytes()
    (tmp_path / "cut.mkv").write_bytes(data[: len(data) * 6 // 10])
    found = decoding.video(tmp_path / "cut.mkv", 64)
    assert 12 <= len(found) <= 18
    assert np.array_equal(found[:12], whole[:12])
    assert decoding.duration(tmp_path / "cut.mkv") == pytest.approx(len(found) / 10, abs=0.11)
    assert np.array_equal(decoding.video(tmp_path / "cut.mkv", 1)[0], found[len(found) // 2])


def test_video_never_holds_all_frames(tmp_path):
    path = files.write(tmp_path / "a.mp4", [files.grey(i % 30, 120, 160) for i in range(200)])
    tracemalloc.start()
    assert len(decoding.video(path, 4)) == 4
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * 120 * 160 * 3


# Sound

SOUNDS = {
    "a.wav": {"sound_codec": "pcm_s16le", "form": "s16"},
    "low.wav": {"sound_codec": "pcm_u8", "form": "u8"},
    "high.wav": {"sound_codec": "pcm_s24le", "form": "s32", "sound_rate": 44100},
    "real.wav": {"sound_codec": "pcm_f32le", "form": "flt", "sound_rate": 48000},
    "a.flac": {"sound_codec": "flac", "form": "s16", "sound_rate": 44100, "layout": "stereo"},
    "a.mp3": {"sound_codec": "libmp3lame", "sound_rate": 44100, "layout": "stereo"},
    "a.mp4": {"sound_rate": 48000, "layout": "stereo"},
    "a.mkv": {"sound_codec": "flac", "form": "s16", "sound_rate": 48000, "layout": "5.1"},
    "a.avi": {"sound_codec": "pcm_s16le", "form": "s16", "sound_rate": 8000},
}
CHANNELS = {"mono": 1, "stereo": 2, "5.1": 6}


@pytest.mark.parametrize("name", SOUNDS)
def test_audio_is_mono_16_khz_at_its_own_level(tmp_path, name):
    how = {"sound_rate": 16000, "layout": "mono", **SOUNDS[name]}
    wave = files.tone(1.5, how["sound_rate"])
    path = files.write(tmp_path / name, sound=np.stack([wave] * CHANNELS[how["layout"]]), **how)
    found = decoding.audio(path)
    assert found.dtype == np.float32 and found.ndim == 1
    assert len(found) == pytest.approx(1.5 * 16000, rel=0.04)  # the codecs fill their last packet
    middle = found[4000:20000]
    assert np.sqrt(2 * np.mean(middle**2)) == pytest.approx(0.5, rel=0.06)
    assert np.argmax(np.abs(np.fft.rfft(middle))) == 440  # 16000 samples: one hertz a bin
    if name not in ("a.mp3", "a.mp4"):
        np.testing.assert_allclose(middle, files.tone(1.5, 16000)[4000:20000], atol=0.008)
    assert not decoding.has_video(path)
    assert decoding.duration(path) == pytest.approx(1.5, abs=0.06)
    np.testing.assert_array_equal(decoding.audio(path, 0.25), found[:4000])


def test_audio_of_16_khz_is_exact(tmp_path):
    values = np.array([0, 1, -1, 32767, -32768, 12345], np.int16)
    wave = np.resize(values, 3000).astype(np.float32) / 32768
    path = files.write(tmp_path / "a.wav", sound=wave, sound_codec="pcm_s16le", form="s16")
    np.testing.assert_array_equal(decoding.audio(path), wave)


def test_audio_cut_in_the_middle_gives_what_stands_before_the_cut(tmp_path):
    for name, codec, form in (("a.wav", "pcm_s16le", "s16"), ("a.mp3", "libmp3lame", "fltp")):
        path = files.write(
            tmp_path / name, sound=files.tone(2, 16000), sound_codec=codec, form=form
        )
        whole = decoding.audio(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        found = decoding.audio(path)
        assert len(found) == pytest.approx(len(whole) / 2, rel=0.15)
        np.testing.assert_array_equal(found[:12000], whole[:12000])


def test_audio_mixes_channels_without_clipping(tmp_path):
    left = np.stack([np.full(3000, 1.0), np.zeros(3000)]).astype(np.float32)
    both = np.ones((2, 3000), np.float32)
    how = {"sound_codec": "pcm_f32le", "form": "flt", "layout": "stereo"}
    assert decoding.audio(files.write(tmp_path / "l.wav", sound=left, **how))[1500] == 0.5
    assert decoding.audio(files.write(tmp_path / "b.wav", sound=both, **how))[1500] == 1.0
    loud = files.write(tmp_path / "c.wav", sound=3 * both, **how)
    assert decoding.audio(loud).max() == 1.0


def test_audio_that_changes_its_format_midway(tmp_path):
    parts = []
    for rate, layout in ((44100, "mono"), (22050, "stereo")):
        wave = np.stack([files.tone(1, rate)] * CHANNELS[layout])
        how = {"sound_codec": "libmp3lame", "sound_rate": rate, "layout": layout}
        path = files.write(tmp_path / f"{rate}.mp3", sound=wave, **how)
        data = path.read_bytes()
        parts.append(data[10 + int.from_bytes(data[6:10], "big") :])  # without the tag
    (tmp_path / "both.mp3").write_bytes(b"".join(parts))
    found = decoding.audio(tmp_path / "both.mp3")
    assert len(found) == pytest.approx(32000, rel=0.08)
    for part in (found[4000:12000], found[20000:28000]):
        assert np.argmax(np.abs(np.fft.rfft(part))) == 220  # 8000 samples: two hertz a bin


def test_audio_that_is_no_number_and_audio_that_does_not_decode(tmp_path):
    wave = files.tone(0.5, 16000)
    wave[100] = np.nan
    path = files.write(tmp_path / "a.wav", sound=wave, sound_codec="pcm_f32le", form="flt")
    with pytest.raises(InputError, match=r"a\.wav: its sound holds samples that are not finite"):
        decoding.audio(path)
    path = files.write(
        tmp_path / "a.mkv", sound=files.tone(0.5, 16000), sound_codec="flac", form="s16"
    )
    path.write_bytes(path.read_bytes().replace(b"A_FLAC", b"A_FLAX"))
    with pytest.raises(InputError, match=r"a\.mkv: no sample of its sound can be decoded"):
        decoding.audio(path)


def test_a_cover_picture_is_no_video(tmp_path):
    with av.open(str(tmp_path / "a.mp3"), "w") as container:
        cover = container.add_stream("mjpeg", rate=1)
        cover.height, cover.width, cover.pix_fmt = 48, 64, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        audio = container.add_stream("libmp3lame", rate=16000, layout="mono")
        for frame in (*files.video_frames(greys(1)), None):
            container.mux(cover.encode(frame))
        for frame in (*files.sound_frames(files.tone(1, 16000), 16000, "mono", "fltp"), None):
            container.mux(audio.encode(frame))
    with av.open(str(tmp_path / "a.mp3")) as container:
        assert len(container.streams.video) == 1
    assert not decoding.has_video(tmp_path / "a.mp3")
    assert len(decoding.audio(tmp_path / "a.mp3")) > 15000
    with pytest.raises(InputError, match="has no video stream"):
        decoding.video(tmp_path / "a.mp3", 4)


# Stretches

NUMBERED = (
    np.arange(64000, dtype=np.int16).astype(np.float32) / 32768
)  # each sample tells its place


@pytest.fixture(scope="module", params=["a.mp4", "a.avi", "a.mkv", "a.webm"])
def talk(request, tmp_path_factory):
    """A video of 30 grey frames, 10 a second, with one second's tone in its second second."""
    path = tmp_path_factory.mktemp("talk") / request.param
    wave = np.zeros(3 * 48000, np.float32)
    wave[48000:96000] = files.tone(1, 48000)
    codec = {"a.avi": "libmp3lame", "a.webm": "libopus"}.get(request.param, "aac")
    how = {
        "sound_codec": codec,
        "sound_rate": 48000,
        "form": "s16" if codec == "libopus" else "fltp",
    }
    return files.write(path, greys(30), wave, codec=CODECS[request.param], options=GOP, **how)


def test_timeline_gives_frames_and_sound_of_the_stretch(talk, monkeypatch):
    late = 1 if talk.suffix == ".avi" else 0  # its first frame has the time of the second
    found = decoding.timeline(talk, 16, 1.45, 2.45)
    assert files.number(found.frames) == [i - late for i in range(15, 25)]
    assert files.number(decoding.timeline(talk, 2, 1.45, 2.45).frames) == [17 - late, 22 - late]
    assert len(found.audio) == 16000
    loud, quiet = found.audio[1000:7000], found.audio[10000:]
    assert np.sqrt(2 * np.mean(loud**2)) == pytest.approx(0.5, rel=0.06)
    assert np.abs(quiet).max() < 0.05
    monkeypatch.setattr(containers, "_seek", lambda *_: False)
    slow = decoding.timeline(talk, 16, 1.45, 2.45)
    assert np.array_equal(slow.frames, found.frames)
    lag = 400 if talk.suffix == ".avi" else 40  # an avi does not tell of the encoder's delay
    for heard in (found.audio, slow.audio):  # the tone ends at two seconds
        assert np.flatnonzero(np.abs(heard) > 0.2)[-1] == pytest.approx(8800, abs=lag)


def test_timeline_decodes_from_the_key_frame_before(talk, monkeypatch):
    decoded = []
    plain = containers._decode
    monkeypatch.setattr(
        containers, "_decode", lambda c, s: (decoded.append(s.type) or f for f in plain(c, s))
    )
    decoding.timeline(talk, 1, 2.5, 2.6)
    assert decoded.count("video") < 15 and decoded.count("audio") < 80


def test_timeline_past_the_end(talk):
    found = decoding.timeline(talk, 4, 50.0, 51.0)
    assert files.number(found.frames) == [29]  # a player goes on showing it
    assert found.audio is None


def test_timeline_places_samples_exactly(tmp_path):
    path = files.write(
        tmp_path / "a.wav", sound=NUMBERED[:32000], sound_codec="pcm_s16le", form="s16"
    )
    found = decoding.timeline(path, 4, 0.5, 1.25)
    assert found.frames is None
    np.testing.assert_array_equal(found.audio, NUMBERED[8000:20000])
    np.testing.assert_array_equal(
        decoding.timeline(path, 4, 1.75, 9.0).audio, NUMBERED[28000:32000]
    )


def test_timeline_shows_the_last_frame_where_no_new_one_comes(tmp_path):
    path = files.write(tmp_path / "a.mkv", greys(3), times=[0, 10, 90], codec="mjpeg")
    assert files.number(decoding.timeline(path, 4, 4.0, 5.0).frames) == [1]
    assert files.number(decoding.timeline(path, 4, 0.5, 9.5).frames) == [1, 2]


def test_timeline_keeps_sound_and_picture_together(tmp_path):
    wave = np.full(16000, 0.5, np.float32)
    how = {"sound_codec": "pcm_s16le", "form": "s16", "sound_start": 1.0}
    path = files.write(tmp_path / "a.mkv", greys(20), wave, codec="mjpeg", **how)
    found = decoding.timeline(path, 4, 0.75, 1.25).audio  # the sound begins at one second
    assert len(found) == 8000
    assert not found[:3950].any() and found[4050:].min() == 0.5
    assert decoding.timeline(path, 4, 0.0, 0.5).audio is None
    assert len(decoding.audio(path)) == 16000
    with pytest.raises(InputError, match="allowed: 0 <= start < end"):
        decoding.timeline(path, 4, 2.0, 2.0)


# Bad files


def test_files_that_cannot_be_read_are_named(tmp_path):
    whole = files.write(tmp_path / "whole.mp4", greys(10)).read_bytes()
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "cut.mp4").write_bytes(whole[: whole.index(b"moov")])
    (tmp_path / "text.mp4").write_text("not a video\n" * 100)
    (tmp_path / "text.txt").write_text("not a video\n" * 100)
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"no" * 40)
    (tmp_path / "nothing").mkdir()
    files.write(tmp_path / "sound.mp4", sound=files.tone(1, 16000))
    blank = files.write(tmp_path / "blank.mkv", greys(3)).read_bytes()
    (tmp_path / "blank.mkv").write_bytes(blank.replace(b"V_MPEG4", b"V_XXXX4"))
    for name, words in (
        ("none.mp4", "no such file"),
        ("none.jpg", "no such file"),
        ("empty.mp4", r"the file is empty \(0 bytes\)"),
        ("empty.jpg", r"the file is empty \(0 bytes\)"),
        ("cut.mp4", "cannot be read as video or sound .* allowed: whole files of mp4"),
        ("text.mp4", "cannot be read as video or sound"),
        ("text.txt", "cannot be read as video or sound"),
        ("bad.png", "cannot be read as an image; allowed: jpg, png, bmp"),
        ("nothing", "the folder holds no image"),
        ("sound.mp4", "has no video stream"),
        ("blank.mkv", "no frame of its video stream can be decoded"),
    ):
        with pytest.raises(InputError, match=rf"{name}: .*{words}"):
            decoding.frames(tmp_path / name, 4)
    for call in (decoding.audio, decoding.duration):
        for name in ("none.mp4", "empty.mp4", "cut.mp4", "text.txt", "nothing"):
            with pytest.raises(InputError, match=name):
                call(tmp_path / name)
    with pytest.raises(InputError, match="no such folder"):
        decoding.folder(tmp_path / "none", 4)


def test_a_playlist_opens_nothing_else(tmp_path):
    files.write(tmp_path / "a.mp4", greys(3))
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n#EXTINF:1,\na.mp4\n#EXT-X-ENDLIST\n")
    (tmp_path / "list.mp4").write_text("ffconcat version 1.0\nfile a.mp4\n")
    for name in ("list.m3u8", "list.mp4"):
        with pytest.raises(InputError, match="cannot be read as video or sound"):
            decoding.video(tmp_path / name, 4)


def test_names_and_tags_in_any_encoding(tmp_path):
    path = files.write(tmp_path / "concat:été 100%d.mkv", greys(3), metadata={"title": "déjà"})
    path.write_bytes(path.read_bytes().replace("déjà".encode(), b"d\xe9j\xe0vu"))
    assert len(decoding.video(path, 4)) == 3
    cv2.imwrite(str(tmp_path / "a.png"), files.grey(4))
    (tmp_path / "a.png").rename(tmp_path / "été.png")
    assert files.number(decoding.image(tmp_path / "été.png")) == 4


# Heads that say more than there is


def png(width, height):
    """Returns a whole png of that size, all black, grey; small, for its rows are all alike."""
    deflate = zlib.compressobj(9)
    row = deflate.compress(bytes(1 + width))
    pixels = row + b"".join(deflate.compress(bytes(1 + width)) for _ in range(height - 1))
    pixels += deflate.flush()
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)),
        (b"IDAT", pixels),
        (b"IEND", b""),
    )
    written = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(written)


def peak(call):
    """Returns the most bytes that a call took, as far as Python and NumPy know."""
    tracemalloc.start()
    with pytest.raises(InputError) as refused:
        call()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most, str(refused.value)


def test_an_image_that_is_larger_than_allowed(tmp_path):
    (tmp_path / "a.png").write_bytes(png(16000, 16000))
    assert (tmp_path / "a.png").stat().st_size < 10**6
    most, said = peak(lambda: decoding.image(tmp_path / "a.png"))
    assert most < 10**7
    assert "a picture of 16000 x 16000 pixels: would take 732 MiB of memory; allowed: 512" in said
    assert "largest_mib" in said
    (tmp_path / "b.png").write_bytes(png(1000, 1000))
    assert decoding.frames(tmp_path / "b.png", 1, 3).shape == (1, 1000, 1000, 3)
    with pytest.raises(InputError, match="1000 x 1000 pixels"):
        decoding.frames(tmp_path / "b.png", 1, 2)


@pytest.mark.parametrize("ending", [".jpg", ".png", ".bmp", ".webp", ".tif", ".gif"])
def test_the_size_of_every_kind_of_image(tmp_path, ending):
    cv2.imwrite(str(tmp_path / f"a{ending}"), files.grey(4, 600, 900))
    assert decoding.image(tmp_path / f"a{ending}").shape == (600, 900, 3)
    with pytest.raises(
        InputError, match="900 x 600 pixels: would take 2 MiB of memory; allowed: 1"
    ):
        decoding.image(tmp_path / f"a{ending}", 1)


def test_another_kind_of_image_under_a_known_name(tmp_path):
    done, data = cv2.imencode(".ppm", files.grey(4))
    assert done
    (tmp_path / "a.png").write_bytes(data.tobytes())
    with pytest.raises(InputError, match="cannot be read as an image"):
        decoding.image(tmp_path / "a.png")


def test_frames_that_are_together_larger_than_allowed(tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    for i in range(10):
        cv2.imwrite(str(folder / f"{i}.png"), files.grey(4, 600, 600))
    films = files.write(tmp_path / "a.mp4", [files.grey(i, 600, 600) for i in range(10)])
    for path in (folder, films):
        assert len(decoding.frames(path, 7, 1.03)) == 7
        with pytest.raises(InputError, match=r"frames: would take 10 MiB .* allowed: 8\.24"):
            decoding.frames(path, 10, 1.03)
        with pytest.raises(InputError, match="600 x 600 pixels"):
            decoding.frames(path, 1, 1)


def wav(path, rate, channels=1, samples=16000):
    """Writes a silent wav whose head says any rate."""
    data = bytes(2 * channels * samples)
    with path.open("wb") as file:
        file.write(b"RIFF" + struct.pack("<I", 36 + len(data)) + b"WAVEfmt ")
        head = (16, 1, channels, rate, min(2 * rate * channels, 2**32 - 1), 2 * channels, 16)
        file.write(struct.pack("<IHHIIHH", *head) + b"data" + struct.pack("<I", len(data)) + data)
    return path


@pytest.mark.parametrize("rate", [1, 999, 800000, 1_500_000_000])
def test_sound_of_a_rate_that_no_recorder_has(tmp_path, rate):
    path = wav(tmp_path / "a.wav", rate)
    most, said = peak(lambda: decoding.audio(path))
    assert most < 10**7
    assert f"{rate} samples a second; allowed: 1000 to 768000" in said


def test_sound_of_every_rate_that_is_allowed(tmp_path):
    for rate in (1000, 8000, 384000, 768000):
        heard = decoding.audio(wav(tmp_path / "a.wav", rate))
        assert abs(len(heard) - 16000 / rate * 16000) <= 1


def test_sound_that_is_longer_than_allowed(tmp_path):
    path = wav(tmp_path / "a.wav", 16000, samples=160000)
    assert len(decoding.audio(path, largest_mib=0.1)) == 160000
    with pytest.raises(InputError, match=r"its sound: would take .* largest_mib"):
        decoding.audio(path, largest_mib=0.05)
    assert len(decoding.audio(path, 1.0, largest_mib=0.05)) == 16000


@pytest.mark.parametrize("channels", [9, 11, 17, 64])
def test_sound_of_many_channels(tmp_path, channels):
    path = wav(tmp_path / "a.wav", 16000, channels)
    try:
        assert decoding.audio(path).shape == (16000,)
    except InputError as error:
        assert "cannot be mixed to one channel" in str(error)
