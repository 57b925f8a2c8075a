"""Which release of amphora this is, for those that say so on the wire."""

from __future__ import annotations

from functools import lru_cache


@lru_cache(maxsize=1)
def own_version() -> str:
    """The version that is installed; ``unknown`` in a source tree that is not."""
    # Imported here: it takes a third as long as all of amphora, and only who connects needs it.
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version('amphora')
    except PackageNotFoundError:
        return 'unknown'
