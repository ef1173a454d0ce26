"""Damages files: bytes, numbers, lengths and words in them."""

import numpy as np

NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1)
WORDS = (
    *(b'"', b",", b";", b"\t", b"\n", b"\r", b"\0", b"\xff", b"\xef\xbb\xbf", b"\xff\xfe"),
    *(b"nan", b"-inf", b"1e999", b"None", b"-1", b"../", b"\\", b"'", b"[" * 2000, b"{" * 2000),
    *(b'{"a":' * 500, b"null", b"true", b"\xed\xa0\x80", b"9" * 400, b" ", b"|O", b"<f8"),
)


def mutate(data: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """Returns data with one to four changes.

    Args:
      data: the file.
      other: another file of its kind, of which pieces may be put in.
      rng: draws the changes.
    """
    out = bytearray(data)
    for _ in range(int(2 ** rng.integers(0, 3))):
        change = CHANGES[rng.integers(len(CHANGES))]
        change(out, other, rng)
    return bytes(out)


def _place(out, rng):
    """Returns a place; heads are small and matter most, so three in ten are near the start."""
    end = len(out) + 1
    return int(rng.integers(min(end, 256) if rng.random() < 0.3 else end))


def _flip(out, other, rng):
    if out:
        out[_place(out, rng) % len(out)] ^= 1 << int(rng.integers(8))


def _bytes(out, other, rng):
    at, size = _place(out, rng), int(rng.integers(1, 64))
    out[at : at + size] = rng.integers(0, 256, size, np.uint8).tobytes()


def _number(out, other, rng):
    size = int(rng.choice([1, 2, 4, 8]))
    value = int(NUMBERS[rng.integers(len(NUMBERS))]) % (1 << 8 * size)
    at = _place(out, rng)
    out[at : at + size] = value.to_bytes(size, ("little", "big")[rng.integers(2)])


def _word(out, other, rng):
    at, word = _place(out, rng), WORDS[rng.integers(len(WORDS))]
    out[at : at + (len(word) if rng.random() < 0.5 else 0)] = word


def _cut(out, other, rng):
    del out[_place(out, rng) :]


def _remove(out, other, rng):
    at = _place(out, rng)
    del out[at : at + int(rng.integers(1, 128))]


def _repeat(out, other, rng):
    at, size = _place(out, rng), int(rng.integers(1, 256))
    out[at:at] = out[at : at + size] * int(rng.integers(1, 5))


def _splice(out, other, rng):
    at, start, size = _place(out, rng), _place(other, rng), int(rng.integers(1, 512))
    out[at : at + size] = other[start : start + size]


CHANGES = (_flip, _flip, _bytes, _number, _number, _word, _cut, _remove, _repeat, _splice)
