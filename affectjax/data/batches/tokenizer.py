"""Sentences to token numbers: a pretrained tokenizer's, or one trained on the texts at hand.

Letters: N texts, L tokens of a row.
"""

from __future__ import annotations

import typing
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import tokenizers

from affectjax.errors import InputError

if typing.TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, SOS, EOS = "<pad>", "<sos>", "<eos>"
# What a Hugging Face folder has at least one of, the newer layout first.
FILES = ("tokenizer.json", "vocab.txt", "vocab.json")


class Tokenizer:
    """A fast tokenizer with the frame that the towers want: `[SOS] tokens [EOS]`, padded.

    Attributes:
      vocab: one more than the greatest number of a token.
      sos: number of the token that begins a text; BERT's is [CLS].
      eos: number of the token that ends it; BERT's is [SEP].
      pad: number that stands where there is none; `eos` where the folder names no other.
    """

    def __init__(self, fast: PreTrainedTokenizerFast, where: str = "the tokenizer"):
        """Wraps a tokenizer of transformers.

        Args:
          fast: one with a Rust backend.
          where: its folder, for messages.
        """
        sos = fast.cls_token_id if fast.bos_token_id is None else fast.bos_token_id
        eos = fast.sep_token_id if fast.eos_token_id is None else fast.eos_token_id
        if sos is None or eos is None:
            raise InputError(f"{where} names no token that begins or none that ends a text")
        self._fast, self._backend = fast, fast.backend_tokenizer
        # A person may write "<eos>" in a sentence: that is text, not the end of it.
        self._backend.encode_special_tokens = True
        self._backend.no_truncation()
        self._backend.no_padding()
        self.sos, self.eos = sos, eos
        self.pad = eos if fast.pad_token_id is None else fast.pad_token_id
        self.vocab = 1 + max(self._backend.get_vocab(with_added_tokens=True).values())

    @classmethod
    def load(cls, folder: str | Path) -> Tokenizer:
        """Returns the tokenizer of a local Hugging Face folder; the network is never asked.

        Raises:
          InputError: there is none in `folder`, or it cannot be read.
        """
        folder = Path(folder)
        if not any((folder / name).is_file() for name in FILES):
            raise InputError(f"{folder} holds no tokenizer: none of {', '.join(FILES)} is there")
        from transformers import AutoTokenizer  # Here, because it takes seconds.

        try:
            fast = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        except Exception as error:  # The Rust half raises no narrower one.
            reason = str(error).strip().split("\n")[0]
            raise InputError(f"the tokenizer in {folder} cannot be read: {reason}") from error
        if not fast.is_fast:
            raise InputError(f"the tokenizer in {folder} has no fast version, which is needed")
        return cls(fast, str(folder))

    @classmethod
    def train(cls, texts: Iterable[str | None], vocab: int = 2000) -> Tokenizer:
        """Returns a byte-level BPE of the lower-cased `texts`; no text has an unknown in it.

        The same texts give the same tokenizer on every machine, in whatever order they come.

        Args:
          texts: sentences in any script; None and blank ones count for nothing.
          vocab: the most tokens, at least 259: three special ones and all bytes.

        Raises:
          InputError: `vocab` is less than that.
        """
        alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
        special = [PAD, SOS, EOS]
        least = len(special) + len(alphabet)
        if vocab < least:
            raise InputError(f"a tokenizer of {vocab} tokens is too small: at least {least}")
        from transformers import PreTrainedTokenizerFast  # Here, because it takes seconds.

        backend = tokenizers.Tokenizer(tokenizers.models.BPE())
        backend.normalizer = tokenizers.normalizers.Sequence(
            [tokenizers.normalizers.NFC(), tokenizers.normalizers.Lowercase()]
        )
        # With the space, a word is the same at the start of a text as within one.
        backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=True)
        backend.decoder = tokenizers.decoders.ByteLevel()
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=vocab,
            special_tokens=special,
            initial_alphabet=sorted(alphabet),
            show_progress=False,
        )
        backend.train_from_iterator((text for text in texts if text), trainer)
        return cls(
            PreTrainedTokenizerFast(
                tokenizer_object=backend, pad_token=PAD, bos_token=SOS, eos_token=EOS
            )
        )

    def save(self, folder: str | Path) -> None:
        """Writes it as a Hugging Face folder, for `load`."""
        self._fast.save_pretrained(folder)

    def words(self, text: str) -> list[int]:
        """Returns the numbers of the tokens of `text`, without SOS and EOS."""
        return self._backend.encode(text, add_special_tokens=False).ids

    def encode(self, texts: Sequence[str | None], length: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the rows `[SOS] tokens [EOS]` of the texts, cut and padded to `length`.

        Args:
          texts: N sentences; None or a blank one is no text and has no valid token.
          length: L, at least 2. What is longer loses its last words, never EOS.

        Returns:
          Numbers `[N, L]` int32, `pad` where there is no token, and the mask `[N, L]` bool.

        Raises:
          InputError: `length` is less than 2.
        """
        if length < 2:
            raise InputError(f"texts of {length} tokens have no room for SOS and EOS: at least 2")
        ids = np.full((len(texts), length), self.pad, np.int32)
        mask = np.zeros((len(texts), length), bool)
        said = [(i, text) for i, text in enumerate(texts) if text is not None and text.strip()]
        found = self._backend.encode_batch([text for _, text in said], add_special_tokens=False)
        for (i, _), encoding in zip(said, found, strict=True):
            row = [self.sos, *encoding.ids[: length - 2], self.eos]
            ids[i, : len(row)] = row
            mask[i, : len(row)] = True
        return ids, mask
