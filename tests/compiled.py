"""Whether amphora is compiled, and from the sources that are there: a change of a source changes nothing until then."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec
from pathlib import Path

import pytest

import amphora

SOURCES = ('.py', '.pyx', '.pxd')


def is_compiled() -> bool:
    """Whether this process runs compiled modules."""
    return find_spec('amphora.amqp.speedups') is not None


def outdated(package: Path = Path(amphora.__file__).parent) -> Iterator[Path]:
    """The compiled modules, of this Python, that are older than their source, or have none any more."""
    for module in sorted(package.rglob('*' + EXTENSION_SUFFIXES[0])):
        stem = module.name.removesuffix(EXTENSION_SUFFIXES[0])
        sources = [source for source in (module.with_name(stem + suffix) for suffix in SOURCES) if source.exists()]
        if not sources or max(source.stat().st_mtime for source in sources) > module.stat().st_mtime:
            yield module


def refuse_other_code_than_the_sources() -> None:
    """:raises pytest.UsageError: when tests would run with outdated modules, or as Python where that is not wanted."""
    if old := ', '.join(map(str, outdated())):
        raise pytest.UsageError(f'not compiled from the source as it is: {old}; `make compile` or `make uncompile`')
    if os.environ.get('AMPHORA_REQUIRE_COMPILED') and not is_compiled():
        raise pytest.UsageError('amphora is not compiled, and AMPHORA_REQUIRE_COMPILED asks for it: `make compile`')
