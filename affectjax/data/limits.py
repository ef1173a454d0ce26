"""How much memory a file of other people may take: what its header says is checked before it does.

A header of a few bytes can ask for more than any machine has.
"""

from affectjax.errors import InputError

# Of a file of features; CMU-MOSEI with BERT's text, the largest of the published ones, has 8 GiB.
LARGEST_MIB = 16384
MIB = 2**20


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
