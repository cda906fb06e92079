"""Where Sightline keeps what it need not compute or ask again: one directory for every cache. It creates nothing."""

import os
from pathlib import Path


def default_directory() -> Path:
    """`$SIGHTLINE_CACHE`, else `$XDG_CACHE_HOME/sightline`, else `~/.cache/sightline`; RuntimeError without a home."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if chosen := os.environ.get("SIGHTLINE_CACHE"):
        return Path(chosen).expanduser()
    return (base if base.is_absolute() else Path.home() / ".cache") / "sightline"  # XDG has relative ones ignored
