"""Sentences to token numbers: a pretrained tokenizer's, or one trained on the texts at hand.

Letters: N texts, L tokens of a row.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import tokenizers

from affectjax.errors import InputError
from affectjax.runtime import hub

PAD, SOS, EOS = "<pad>", "<sos>", "<eos>"
WHOLE, CONFIG = "tokenizer.json", "tokenizer_config.json"
# What a Hugging Face folder has at least one of, the newer layout first.
FILES = (WHOLE, "vocab.txt", "vocab.json")
# Classes of transformers whose tokenizer.json says all; others change what they have read.
PLAIN = ("PreTrainedTokenizerFast", "TokenizersBackend")
# Names of a folder's config for the tokens that we need, those of BERT last.
NAMES = {
    "sos": ("bos_token", "cls_token"),
    "eos": ("eos_token", "sep_token"),
    "pad": ("pad_token",),
}


class Tokenizer:
    """A fast tokenizer with the frame that the towers want: `[SOS] tokens [EOS]`, padded.

    Attributes:
      vocab: one more than the greatest number of a token.
      sos: number of the token that begins a text; BERT's is [CLS].
      eos: number of the token that ends it; BERT's is [SEP].
      pad: number that stands where there is none; `eos` where the folder names no other.
    """

    def __init__(
        self, backend: tokenizers.Tokenizer, special: dict[str, str], where: str = "the tokenizer"
    ):
        """Wraps a tokenizer of the library `tokenizers`.

        Args:
          backend: it; what it does to whole texts, such as cutting them, is switched off.
          special: its tokens by the keys of `NAMES`; "pad" may lack.
          where: its folder, for messages.
        """
        if "sos" not in special or "eos" not in special:
            raise InputError(f"{where} names no token that begins or none that ends a text")
        self._backend, self._special = backend, special
        # A person may write "<eos>" in a sentence: that is text, not the end of it.
        backend.encode_special_tokens = True
        backend.no_truncation()
        backend.no_padding()
        numbers = {key: backend.token_to_id(token) for key, token in special.items()}
        unknown = [special[key] for key, number in numbers.items() if number is None]
        if unknown:
            raise InputError(f"{where} has no number for its token {unknown[0]!r}")
        self.sos, self.eos = numbers["sos"], numbers["eos"]
        self.pad = numbers.get("pad", self.eos)
        self.vocab = 1 + max(backend.get_vocab(with_added_tokens=True).values())

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Returns the tokenizer of a Hugging Face folder, local or by its name on the hub.

        Raises:
          InputError: there is none in `folder`, or it cannot be read.
        """
        folder = hub.local(folder)
        if not any((folder / name).is_file() for name in FILES):
            raise InputError(f"{folder} holds no tokenizer: none of {', '.join(FILES)} is there")
        try:
            backend, special = _plain(folder) or _of_transformers(folder)
        except InputError:
            raise
        except Exception as error:  # The Rust half raises no narrower one.
            reason = str(error).strip().split("\n")[0]
            raise InputError(f"the tokenizer in {folder} cannot be read: {reason}") from error
        return cls(backend, special, str(folder))

    @classmethod
    def train(cls, texts: Iterable[str | None], vocab: int = 2000) -> Self:
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
        return cls(backend, {"pad": PAD, "sos": SOS, "eos": EOS})

    def save(self, folder: str | Path) -> None:
        """Writes it as a Hugging Face folder, for `load` and for transformers."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self._backend.save(str(folder / WHOLE))
        named = {NAMES[key][0]: token for key, token in self._special.items()}
        content = {"tokenizer_class": PLAIN[0], **named}
        (folder / CONFIG).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

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


Read = tuple[tokenizers.Tokenizer, dict[str, str]]


def _plain(folder: Path) -> Read | None:
    """Returns a folder's tokenizer and its special tokens; None where transformers must read it."""
    if not (folder / WHOLE).is_file() or not (folder / CONFIG).is_file():
        return None
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    if config.get("tokenizer_class") not in PLAIN:
        return None
    return tokenizers.Tokenizer.from_file(str(folder / WHOLE)), _special(config)


def _of_transformers(folder: Path) -> Read:
    from transformers import AutoTokenizer  # Here, because it takes seconds.

    fast = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    if not fast.is_fast:
        raise InputError(f"the tokenizer in {folder} has no fast version, which is needed")
    named = {name: getattr(fast, name) for names in NAMES.values() for name in names}
    return fast.backend_tokenizer, _special(named)


def _special(config: dict[str, Any]) -> dict[str, str]:
    """Returns the tokens by the keys of `NAMES`, from those of a config by their names there."""
    found = {}
    for key, names in NAMES.items():
        tokens = [config[name] for name in names if config.get(name) is not None]
        if tokens:
            # Either the token, or a description of it.
            found[key] = tokens[0]["content"] if isinstance(tokens[0], dict) else tokens[0]
    return found
