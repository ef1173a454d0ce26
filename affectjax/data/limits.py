"""What files of other people may do: how much memory they take, and which files they lead to.

A header of a few bytes can ask for more memory than any machine has, so what it says is checked
before the memory is taken.
"""

import dataclasses
from pathlib import Path

from affectjax.errors import InputError

# Of features; CMU-MOSEI with BERT's text, the largest of the published files, has 8 GiB.
LARGEST_MIB = 16384
# Of one picture; all frames of a clip together, or its sound, may take eight times as much.
LARGEST_PICTURE_MIB = 512
CLIP = 8
MIB = 2**20


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a file of features may do.

    Attributes:
      largest_mib: the most MiB that its arrays may take.
      allow_outside: whether it may name files outside its folder, links followed.
    """

    largest_mib: float = LARGEST_MIB
    allow_outside: bool = False


def check(size: int, largest_mib: float, where: str) -> None:
    """Raises InputError where something would take more memory than is allowed.

    Args:
      size: bytes that it says it has.
      largest_mib: MiB that are allowed.
      where: file and key, for the message.
    """
    if size > largest_mib * MIB:
        raise InputError(
            f"{where}: would take {size / MIB:,.0f} MiB of memory; allowed: {largest_mib:g}, which"
            " largest_mib says"
        )


def check_inside(path: Path, folder: Path, what: str, allow_outside: bool) -> None:
    """Raises InputError for a path that leads out of a folder, links followed.

    Args:
      path: of a file that another file names.
      folder: where that other file is.
      what: who names the path, for the message.
      allow_outside: whether it may.
    """
    try:
        inside = path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError) as error:  # links in a circle, letters of no path
        raise InputError(f"{what} cannot be looked at ({error})") from error
    if not allow_outside and not inside:
        raise InputError(f"{what} leads out of {folder}; only allow_outside permits that")
