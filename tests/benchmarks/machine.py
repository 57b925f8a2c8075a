"""What a run was made on: without it, no figure means anything."""

from __future__ import annotations

import os
import platform
import sys
import sysconfig
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from amphora.amqp import Connection
from tests.benchmarks.contender import CONTENDERS
from tests.benchmarks.limit import library_version

# Beside the contenders: what they are made of, and what decides how fast they are.
PARTS = ('gevent', 'greenlet', 'msgspec', 'pamqp', 'eventlet', 'kombu', 'aiormq', 'pyzmq')


def machine() -> dict[str, str]:
    """The computer and its system; nothing that says whose it is."""
    return {
        'CPU': _first('/proc/cpuinfo', 'model name') or platform.machine(),
        'cores': str(os.cpu_count()),
        'memory': f'{int((_first("/proc/meminfo", "MemTotal") or "0 kB").split()[0]) / 1048576:.1f} GiB',
        'kernel': f'{platform.system()} {platform.release()}',
        'system': (_first('/etc/os-release', 'PRETTY_NAME', '=') or 'unknown').strip('"'),
        'load before': f'{os.getloadavg()[0]:.2f}',
    }


def versions(url: str) -> dict[str, str]:
    """Of everything that takes part."""
    with Connection.from_url(url) as connection:
        broker = connection.server_properties
    found = {
        'Python': f'{platform.python_implementation()} {platform.python_version()}, {_build()}',
        str(broker.get('product', 'broker')): str(broker.get('version')),
        'Erlang': str(broker.get('platform')),
        'librabbitmq': library_version() or 'not installed',
    }
    for name in (*dict.fromkeys(each.needs for each in CONTENDERS if each.needs), *PARTS):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = 'not installed'
    return found


def _build() -> str:
    """How this Python was compiled. Debian's does not say that it was given a profile, and it was."""
    if sys.base_prefix == '/usr':
        return "the system's"
    optimized = '--enable-optimizations' in (sysconfig.get_config_var('CONFIG_ARGS') or '')
    return f'compiled {"with" if optimized else "without"} --enable-optimizations'


def _first(path: str, name: str, separator: str = ':') -> str | None:
    for line in Path(path).read_text().splitlines():
        key, _, value = line.partition(separator)
        if key.strip() == name:
            return value.strip()
    return None
