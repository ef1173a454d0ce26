"""Writes small media files for tests: frames of one grey each, sounds of one tone."""

import struct
from fractions import Fraction

import av
import numpy as np

STEP = 8  # grey levels from one frame to the next


def grey(i, height=48, width=64):
    """Returns frame i as `[H, W, 3]` uint8."""
    return np.full((height, width, 3), i * STEP, np.uint8)


def number(x):
    """Returns which frame of `grey` a decoded one `[..., H, W, 3]` is, by its centre."""
    centre = x[..., x.shape[-3] // 2, x.shape[-2] // 2, :].mean(axis=-1)
    return np.rint(centre / STEP).astype(int).tolist()


def tone(seconds, rate, hertz=440.0, amplitude=0.5):
    """Returns `[S]` float32."""
    times = np.arange(round(seconds * rate)) / rate
    return (amplitude * np.sin(2 * np.pi * hertz * times)).astype(np.float32)


def write(
    path,
    pictures=(),
    sound=None,
    *,
    codec="libx264",
    rate=10,
    times=None,
    sound_codec="aac",
    sound_rate=16000,
    layout="mono",
    form="fltp",
    sound_start=0.0,
    metadata=None,
    options=None,
    aspect=None,
):
    """Writes a file of pictures `[T, H, W, 3]` and of a sound `[C, S]` float32, either optional.

    `times` are the frames' times in units of 1/rate seconds, in place of 0, 1, 2, and so on;
    `aspect` is width and height of a pixel.
    """
    with av.open(str(path), "w") as container:
        container.metadata.update(metadata or {})
        streams = []
        if len(pictures):
            video = container.add_stream(codec, rate=rate, options=options or {})
            video.height, video.width = pictures[0].shape[:2]
            video.bit_rate = 4_000_000
            video.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            if aspect:
                video.codec_context.sample_aspect_ratio = Fraction(*aspect)
            streams.append((video, video_frames(pictures, times)))
        if sound is not None:
            audio = container.add_stream(sound_codec, rate=sound_rate, layout=layout)
            audio.format = form
            streams.append((audio, sound_frames(sound, sound_rate, layout, form, sound_start)))
        for stream, frames in streams:
            for frame in (*frames, None):
                container.mux(stream.encode(frame))
    return path


def video_frames(pictures, times=None):
    """Yields pictures as frames to encode."""
    for i, picture in enumerate(pictures):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        frame.pts = i if times is None else times[i]
        yield frame


def sound_frames(sound, rate, layout, form, begin=0.0):
    """Yields a sound `[C, S]` float32 as frames to encode, in the sample format asked for."""
    sound = np.atleast_2d(sound)
    resampler = av.AudioResampler(form, layout, rate)
    for start in range(0, sound.shape[1], 1024):
        block = np.ascontiguousarray(sound[:, start : start + 1024])
        frame = av.AudioFrame.from_ndarray(block, format="fltp", layout=layout)
        frame.sample_rate, frame.pts = rate, start + round(begin * rate)
        yield from resampler.resample(frame)


def packets(path, codec, blocks, height=48, width=64):
    """Writes a video stream of these encoded packets, as they are."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.height, stream.width = height, width
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        container.start_encoding()
        for i, block in enumerate(blocks):
            packet = av.Packet(block)
            packet.stream = stream
            packet.time_base = stream.codec_context.time_base
            packet.pts = packet.dts = i
            packet.is_keyframe = True
            container.mux(packet)
    return path


def encode(picture, codec):
    """Returns one picture as the packet of an encoder of its own."""
    context = av.CodecContext.create(codec, "w")
    context.height, context.width = picture.shape[:2]
    context.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    context.time_base = Fraction(1, 10)
    (frame,) = video_frames([picture])
    return b"".join(bytes(p) for p in (*context.encode(frame), *context.encode(None)))


def turn(path, a, b, c, d):
    """Writes the matrix (a b; c d) of a rotation into the track header of an mp4."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 44  # version 0: the matrix stands 40 bytes after the version
    one = 1 << 16
    struct.pack_into(">9i", data, at, a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path
