"""Where a script's report goes: looked at before the work starts, not after it."""

import os
from pathlib import Path


def check_place(path: str | None, suffix: str = ".json") -> Path | None:
    """`path` with ~ expanded; its folder is made. None for no path.

    Raises:
      ValueError: it does not end in `suffix`, is a folder, or may not be written.
      OSError: its folder cannot be made.
    """
    if not path:
        return None
    place = Path(path).expanduser()
    if place.suffix != suffix or place.is_dir():
        raise ValueError(f"{place}: must be a file that ends in {suffix}")
    place.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(place if place.exists() else place.parent, os.W_OK):
        raise ValueError(f"{place}: one may not write there")
    return place
