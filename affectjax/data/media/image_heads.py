"""How large an image is, by its head alone: nothing is decoded.

OpenCV, which decodes, takes the memory for all pixels before it has seen one.
"""

import io

from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

# By the first bytes. Pillow's own `open` has a limit of its own, one for the whole process.
_KINDS = (
    (b"\xff\xd8", JpegImagePlugin.JpegImageFile),
    (b"\x89PNG", PngImagePlugin.PngImageFile),
    (b"BM", BmpImagePlugin.BmpImageFile),
    (b"RIFF", WebPImagePlugin.WebPImageFile),
    (b"II", TiffImagePlugin.TiffImageFile),
    (b"MM", TiffImagePlugin.TiffImageFile),
    (b"GIF8", GifImagePlugin.GifImageFile),
)


def size(data: bytes) -> tuple[int, int] | None:
    """Returns width and height of an encoded image; None where it is none.

    Args:
      data: a whole jpg, png, bmp, webp, tif or gif.
    """
    kind = next((kind for start, kind in _KINDS if data.startswith(start)), None)
    if kind is None:
        return None
    try:
        return kind(io.BytesIO(data)).size
    except Exception:  # a damaged head can fail in any of Pillow's readers, with any exception
        return None
