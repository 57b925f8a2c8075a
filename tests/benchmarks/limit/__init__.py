"""The limit: an echo in C on librabbitmq, compiled for the run."""

import shutil
from ctypes import CDLL, c_char_p
from ctypes.util import find_library
from pathlib import Path

from gevent import subprocess

HERE = Path(__file__).parent
COMMAND = ('gcc', '-O2')


def build(directory: Path) -> str | None:
    """Compile server and client into a directory; gives the reason when that cannot be done here."""
    if shutil.which(COMMAND[0]) is None:
        return 'there is no gcc; tests/install-librabbitmq installs it'
    for program in ('server', 'client'):
        sources = [str(HERE / f'{program}.c'), str(HERE / 'link.c')]
        done = subprocess.run(
            [*COMMAND, '-o', str(directory / program), *sources, '-lrabbitmq'],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        if done.returncode:
            said = [line for line in done.stdout.decode(errors='replace').splitlines() if 'error' in line]
            return f'{(said or ["gcc failed"])[0].strip()}; tests/install-librabbitmq installs what it needs'
    return None


def library_version() -> str | None:
    """The version of librabbitmq; None when it is not installed."""
    name = find_library('rabbitmq')
    if name is None:
        return None
    amqp_version = CDLL(name).amqp_version
    amqp_version.restype = c_char_p
    return amqp_version().decode()
