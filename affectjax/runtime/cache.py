"""The user's cache folder: prepared data, and what was compiled."""

import os
from pathlib import Path


def user_folder() -> Path:
    """Returns AFFECTJAX_CACHE, or .cache/affectjax in the home folder."""
    return Path(os.environ.get("AFFECTJAX_CACHE") or Path.home() / ".cache" / "affectjax")
