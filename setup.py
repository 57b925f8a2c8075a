"""Compiles what every call goes through, where that can be done; all else that this file could say is in setup.cfg.

With AMPHORA_PURE=1 nothing is compiled. With AMPHORA_REQUIRE_COMPILED=1 it is an error when it cannot be.
"""

import os
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

# In layers, from below. A .pxd file beside a module says which of its classes and functions are known to C.
COMPILED = (
    # the wire
    'amphora/amqp/speedups.pyx',
    'amphora/amqp/frames.py',
    'amphora/amqp/properties.py',
    'amphora/amqp/gathered.py',
    'amphora/amqp/content.py',
    'amphora/amqp/transport.py',
    # a channel, what it keeps, and its connection
    'amphora/amqp/acks.py',
    'amphora/amqp/confirms.py',
    'amphora/amqp/consumers.py',
    'amphora/amqp/channel.py',
    'amphora/amqp/connection.py',
    # values to bytes and back
    'amphora/envelope.py',
    'amphora/dialects/encoded.py',
    'amphora/dialects/ids.py',
    'amphora/values.py',
    'amphora/long_texts.pyx',
    'amphora/codec.py',
    'amphora/dialects/native.py',
    # messages
    'amphora/publisher.py',
    # calls
    'amphora/caller.py',
    'amphora/pending.py',
    'amphora/calling.py',
    'amphora/client.py',
    # requests
    'amphora/dispatch.py',
    'amphora/redelivery.py',
    'amphora/recent.py',
    'amphora/workers.py',
    'amphora/intake.py',
    'amphora/answering.py',
)

NOT_COMPILED = """
amphora could not be compiled: %s

It will be installed as plain Python, which does the same and takes twice the processor time. To have it compiled,
install a C compiler and Python's headers (on Debian and Ubuntu: apt-get install gcc libc6-dev python3-dev), then
install it again.

"""


class AllOrNothing(build_ext):
    """Compiled modules reach into each other: with one of them missing or out of date, the others do not work."""

    def initialize_options(self) -> None:
        super().initialize_options()
        self.parallel = os.cpu_count()

    def run(self) -> None:
        directories = [Path(self.build_lib)] + [Path()] * bool(self.inplace)
        self.remove_others(directories)
        try:
            self.translate()
            super().run()
        except Exception as error:  # there are as many as there are things to be missing
            if os.environ.get('AMPHORA_REQUIRE_COMPILED'):
                raise
            sys.stderr.write(NOT_COMPILED % error)
            self.extensions = []
            self.remove_others(directories)

    def translate(self) -> None:
        """Let the sources be C."""
        from Cython.Build import cythonize  # not there when all that is wanted is plain Python

        translated = cythonize(
            self.extensions,
            build_dir=self.build_temp,
            nthreads=self.parallel,
            quiet=True,
            compiler_directives={'language_level': 3, 'annotation_typing': False, 'binding': True},
        )
        sources = {extension.name: extension.sources for extension in translated}
        for extension in self.extensions:
            extension.sources = sources[extension.name]

    def remove_others(self, directories: list[Path]) -> None:
        """Remove what an earlier build has left there, and this one does not make: Python would prefer it."""
        made = {self.get_ext_filename(extension.name) for extension in self.extensions}
        for directory in directories:
            for file in directory.glob('amphora/**/*%s' % sysconfig.get_config_var('EXT_SUFFIX')):
                if str(file.relative_to(directory)) not in made:
                    file.unlink()


# By -O2 older compilers never take many bytes together. All else is larger by -O3, and no faster.
LOOPS = ('amphora/long_texts.pyx',)


def extensions() -> list[Extension]:
    if os.environ.get('AMPHORA_PURE'):
        return []
    return [
        Extension(
            path.rpartition('.')[0].replace('/', '.'),
            [path],
            extra_compile_args=['-O3' if path in LOOPS else '-O2', '-g0', '-fno-plt'],
        )
        for path in COMPILED
    ]


# Processes that compile may import this file anew.
if __name__ == '__main__':
    setup(ext_modules=extensions(), cmdclass={'build_ext': AllOrNothing})
