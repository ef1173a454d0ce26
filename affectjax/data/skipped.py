"""Records of a data set that cannot be used: skipped, counted and listed, or at once an error."""

import dataclasses

from affectjax.errors import InputError


@dataclasses.dataclass
class SkippedRecords:
    """What cannot be used of a data set, gathered while it is listed and read.

    Attributes:
      strict: whether the first such record is an error.
      reasons: by (split, id), why a record cannot be used.
      cut: by modality, how many examples a reader found longer than the greatest length.
    """

    strict: bool = True
    reasons: dict[tuple[str, str], str] = dataclasses.field(default_factory=dict)
    cut: dict[str, int] = dataclasses.field(default_factory=dict)

    def skip(self, where: str, split: str, name: str, reason: str) -> None:
        """Notes a record that cannot be used; the first reason stands.

        Args:
          where: the file, for the message.
          split: its split.
          name: its id.
          reason: what is wrong with it.

        Raises:
          InputError: when strict.
        """
        if self.strict:
            raise InputError(f"{where}: {split}: example {name}: {reason}")
        self.reasons.setdefault((split, name), reason)
