"""Files of a directory whose functions are offered without naming them: ``plugin*.py``."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from amphora.functions import marked_functions

PATTERN = 'plugin*.py'


def plugin_functions(directory: str | os.PathLike[str]) -> dict[str, Callable[..., Any]]:
    """The marked functions of all plugins in a directory, by the names that clients call them.

    The files are imported in the order of their names, each once in a process however often this is called.

    :raises FileNotFoundError: there is no such directory, or no such file in it.
    :raises NotADirectoryError: it is a file.
    :raises ImportError: a file cannot be imported; the error names it, and `path` is the file.
    :raises ValueError: a file has no marked function; or two functions have the same name.
    """
    place = Path(directory).resolve()
    if not place.exists():
        raise FileNotFoundError('there is no directory %s to load plugins from' % place)
    if not place.is_dir():
        raise NotADirectoryError('%s is no directory to load plugins from' % place)
    files = sorted(path for path in place.glob(PATTERN) if path.is_file() or not path.exists())
    if not files:
        raise FileNotFoundError('there is no file %s in %s' % (PATTERN, place))
    found: dict[str, Callable[..., Any]] = {}
    homes: dict[str, Path] = {}
    for path in files:
        try:
            functions = marked_functions(vars(_import(path)))
        except ValueError as error:
            raise ValueError('plugin %s: %s' % (path, error)) from error
        if not functions:
            raise ValueError('plugin %s: no function is marked with @amphora.function' % path)
        for name, function in functions.items():
            # Several may import the same function from elsewhere.
            if found.setdefault(name, function) != function:
                raise ValueError('plugins %s and %s: both have a function %r' % (homes[name], path, name))
            homes.setdefault(name, path)
    return found


def _import(path: Path) -> ModuleType:
    # Files of the same name in two directories are two modules, and neither is one that anybody else imports.
    name = str(path.with_suffix(''))
    if name in sys.modules:
        return sys.modules[name]
    spec = spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    # While it is imported, too: dataclasses and annotations look their module up.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        reason = '%s: %s' % (type(error).__name__, error)
        raise ImportError(
            'plugin %s%s cannot be imported: %s' % (path, _line(path, error), reason), path=str(path)
        ) from error
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _line(path: Path, error: BaseException) -> str:
    """Where in the file it went wrong; a `SyntaxError` says it by itself."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return ', line %d,' % lines[-1] if lines and lines[-1] is not None else ''
