"""Pretrained weights by name: a local folder, or a model of the Hugging Face hub.

A name is `owner/model`, with `@revision` behind it where one wants a certain one. What is in the
hub's cache is taken from there; else it is downloaded, and that is said, unless the environment
variable HF_HUB_OFFLINE is set. Weights are taken as safetensors alone. HF_ENDPOINT names another
hub, HF_HOME another cache, as for all of huggingface_hub.
"""

import contextlib
import functools
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from absl import logging

from affectjax.errors import InputError

NAME = re.compile(r"([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")
WANTED = ("*.json", "*.safetensors", "*.txt", "*.model", "*.npz")
# Keys of a config that name a folder with weights or a tokenizer.
KEYS = ("weights", "tokenizer")
_SECONDS = 10  # after which a hub that does not answer counts as not reachable


def local(folder: str | Path) -> Path:
    """Returns the local folder of weights.

    Args:
      folder: a path; or the name of a model, as in "openai/clip-vit-base-patch32@main", where there
        is no such path.

    Raises:
      InputError: it is a name, and that model is neither in the cache nor can be downloaded.
    """
    path = Path(folder)
    found = NAME.fullmatch(str(folder))
    if path.exists() or not found:
        return path
    return _of_hub(str(folder), found[1], found[2])


def check(config: Mapping[str, Any], trail: str = "config") -> None:
    """Raises InputError for a name of weights in a config that is neither a folder nor reachable.

    What is to be downloaded is downloaded here, before any data is opened.

    Args:
      config: a section, or the whole.
      trail: of the section, for the message.
    """
    for key, value in config.items():
        if isinstance(value, Mapping):
            check(value, f"{trail}.{key}")
        elif key.endswith(KEYS) and isinstance(value, str) and value:
            try:
                local(value)
            except InputError as error:
                raise InputError(f'"{trail}.{key}": {error}') from error


@functools.cache
def _of_hub(given: str, name: str, revision: str | None) -> Path:
    import huggingface_hub  # slow, and most runs name folders

    fetch = functools.partial(
        huggingface_hub.snapshot_download,
        name,
        revision=revision,
        allow_patterns=list(WANTED),
        etag_timeout=_SECONDS,
        endpoint=os.environ.get("HF_ENDPOINT"),
    )
    with contextlib.suppress(Exception):  # it is not there, or not whole
        cached = Path(fetch(local_files_only=True))
        if any(cached.glob("*.safetensors")):  # another program may have fetched a part
            return cached
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise InputError(
            f"{given} is no folder, and not in the cache of the hub; HF_HUB_OFFLINE forbids to "
            "download it"
        )
    logging.info("%s is no folder: it is looked for on the hub", given)
    try:
        path = Path(fetch())
    except Exception as error:  # of the network, or of the hub, in many kinds
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise InputError(
            f"{given} is neither a folder here nor a model that the hub gives ({reason})"
        ) from error
    logging.info("%s: %s", given, path)
    return path
