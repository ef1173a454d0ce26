"""The modality names, in the order in which they stand everywhere, and the rate of sound."""

from collections.abc import Sequence

from affectjax.errors import InputError

MODALITIES = ("text", "audio", "vision")
SAMPLE_RATE = 16_000  # samples a second, of all sound in the package


def chosen(wanted: Sequence[str], have: Sequence[str], key: str) -> tuple[str, ...]:
    """Returns those of `have` that are wanted, in its order; all of them where none is named.

    Args:
      wanted: names from a config.
      have: those that the data has.
      key: of the config, for the message.

    Raises:
      InputError: one is wanted that the data does not have.
    """
    lacking = [m for m in wanted if m not in have]
    if lacking:
        raise InputError(f'"{key}" has {lacking[0]!r}; the data has: {", ".join(have)}')
    return tuple(m for m in have if not wanted or m in wanted)
