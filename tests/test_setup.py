"""Installing: all modules of setup.py's list are compiled, or none is; and no test runs what was compiled before."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from tests.compiled import outdated, refuse_other_code_than_the_sources

ROOT = Path(__file__).parent.parent
SUFFIX = EXTENSION_SUFFIXES[0]
LISTED = re.findall(r"^    '(amphora/.*\.pyx?)',", (ROOT / 'setup.py').read_text(), re.MULTILINE)
# Enough to tell all of them from some.
MODULES = [path.rpartition('.')[0] for path in LISTED[:3]]

# In the place of a compiler: it makes empty files, and fails over the source that $FAIL names.
COMPILER = """#!/bin/sh
case "$*" in *"/$FAIL.c"*) exit 1; esac
while [ "$1" != -o ]; do shift; done
: > "$2"
"""

Build = Callable[..., 'subprocess.CompletedProcess[str]']


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The project with the first modules of the list, of a line each: what takes long is what is in them."""
    for name in ('setup.py', 'setup.cfg', 'pyproject.toml', 'README.md', 'LICENSE'):
        shutil.copy(ROOT / name, tmp_path)
    strike(LISTED[3:], tmp_path / 'setup.py')
    for path in LISTED[:3]:
        source = tmp_path / path
        source.parent.mkdir(parents=True, exist_ok=True)
        source.write_text('ANSWER = 42\n')
        for package in Path(path).parents[:-1]:
            (tmp_path / package / '__init__.py').touch()
    compiler = tmp_path / 'compiler'
    compiler.write_text(COMPILER)
    compiler.chmod(0o755)
    return tmp_path


@pytest.fixture
def build(project: Path) -> Build:
    """Builds in place, in an environment of variables that has only these of amphora's."""

    def run(**variables: str) -> subprocess.CompletedProcess[str]:
        others = {name: value for name, value in os.environ.items() if not name.startswith('AMPHORA_')}
        return subprocess.run(
            [sys.executable, 'setup.py', '--quiet', 'build_ext', '--inplace'],
            cwd=project,
            env={**others, 'CC': str(project / 'compiler'), **variables},
            capture_output=True,
            text=True,
        )

    return run


def strike(paths: list[str], setup: Path) -> None:
    """Take modules from the list of those that are compiled."""
    lines = setup.read_text().splitlines(keepends=True)
    setup.write_text(''.join(line for line in lines if not line.startswith(tuple(f"    '{path}'" for path in paths))))


def compiled(directory: Path) -> set[str]:
    """What is compiled in a package, or in one that a wheel would be made of."""
    return {str(file.relative_to(directory)).removesuffix(SUFFIX) for file in directory.glob(f'amphora/**/*{SUFFIX}')}


def to_be_installed(project: Path) -> set[str]:
    return {module for directory in project.glob('build/lib*') for module in compiled(directory)}


def test_all_are_compiled_without_a_word_and_no_c_is_left_beside_them(project: Path, build: Build) -> None:
    done = build()

    assert (done.returncode, done.stdout, done.stderr) == (0, '', '')
    assert compiled(project) == to_be_installed(project) == set(MODULES)
    assert list(project.glob('amphora/**/*.c')) == []


def test_nothing_is_compiled_when_that_is_not_wanted(project: Path, build: Build) -> None:
    done = build(AMPHORA_PURE='1', AMPHORA_REQUIRE_COMPILED='1')

    assert (done.returncode, done.stdout, done.stderr) == (0, '', '')
    assert compiled(project) == to_be_installed(project) == set()


def test_without_a_compiler_it_is_python_and_says_so(project: Path, build: Build) -> None:
    done = build(CC='/bin/false')

    assert done.returncode == 0
    assert 'amphora could not be compiled: ' in done.stderr
    assert 'plain Python' in done.stderr
    assert 'apt-get install gcc libc6-dev python3-dev' in done.stderr
    assert compiled(project) == to_be_installed(project) == set()


def test_without_cython_it_is_python_and_says_so(project: Path, build: Build) -> None:
    (project / 'Cython.py').write_text('raise ImportError("no Cython here")')

    done = build(PYTHONPATH=str(project))

    assert done.returncode == 0
    assert 'amphora could not be compiled: ' in done.stderr
    assert compiled(project) == to_be_installed(project) == set()


def test_one_that_cannot_be_compiled_takes_the_others_with_it(project: Path, build: Build) -> None:
    build()
    for translated in project.glob('build/temp*/**/*.c'):
        translated.unlink()

    done = build(FAIL=Path(MODULES[-1]).name)

    assert done.returncode == 0
    assert 'amphora could not be compiled: ' in done.stderr
    assert compiled(project) == to_be_installed(project) == set()


def test_failing_is_an_error_where_compiling_is_required(project: Path, build: Build) -> None:
    done = build(CC='/bin/false', AMPHORA_REQUIRE_COMPILED='1')

    assert done.returncode != 0
    assert compiled(project) == set()


def test_what_is_no_longer_on_the_list_is_removed(project: Path, build: Build) -> None:
    build()
    strike(LISTED[2:], project / 'setup.py')

    build()

    assert compiled(project) == to_be_installed(project) == set(MODULES[:-1])


@pytest.mark.parametrize('source', ['.py', '.pyx', '.pxd'])
def test_a_module_older_than_its_source_is_outdated(tmp_path: Path, source: str) -> None:
    module = tmp_path / 'amqp' / f'frames{SUFFIX}'
    module.parent.mkdir()
    module.touch()
    assert list(outdated(tmp_path)) == [module]  # it has no source

    beside = module.with_name(f'frames{source}')
    beside.touch()
    os.utime(beside, (1000, 1000))
    assert list(outdated(tmp_path)) == []

    os.utime(module, (999, 999))
    assert list(outdated(tmp_path)) == [module]


def test_no_test_runs_with_an_outdated_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('tests.compiled.outdated', lambda: iter([Path('frames.so')]))

    with pytest.raises(pytest.UsageError, match=r'frames\.so; `make compile`'):
        refuse_other_code_than_the_sources()


def test_no_test_runs_as_python_where_compiling_is_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('AMPHORA_REQUIRE_COMPILED', '1')
    monkeypatch.setattr('tests.compiled.is_compiled', lambda: False)

    with pytest.raises(pytest.UsageError, match='not compiled'):
        refuse_other_code_than_the_sources()
