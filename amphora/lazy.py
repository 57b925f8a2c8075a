"""Packages that import what is asked for when it is: not everybody wants all of it, and each import takes its time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any


def lazy_names(package: str, homes: Sequence[str], names: Sequence[str]) -> Callable[[str], Any]:
    """The ``__getattr__`` of a package.

    :param package: its name.
    :param homes: the modules in it that define its names.
    :param names: its public names.
    """

    def get(name: str) -> Any:
        if name in names:
            for home in homes:
                public = vars(import_module('%s.%s' % (package, home)))
                if name in public:
                    setattr(import_module(package), name, public[name])
                    return public[name]
        raise AttributeError('module %r has no attribute %r' % (package, name))

    return get
