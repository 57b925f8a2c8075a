"""The project as a whole: its commands, its layout, and what must not get into its files."""

import re
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest
from gevent import monkey

ROOT = Path(__file__).parent.parent

TOP_LEVEL = {
    '.ci',
    '.gitignore',
    'CHANGELOG.md',
    'LICENSE',
    'Makefile',
    'README.md',
    'amphora',
    'docs',
    'pyproject.toml',
    'setup.cfg',
    'setup.py',
    'tests',
}

# In pieces, so that this file does not contain what it looks for.
FORBIDDEN = {
    'a package registry': '|'.join(('py' + 'pi.org', 'pythonhosted' + '.org', 'deb.' + 'debian.org')),
    'a path of one machine': '|'.join(('/home' + r'/\w', '/ro' + 'ot/')),
}


def project_files() -> list[Path]:
    """What is, or is about to be, under version control."""
    listed = subprocess.run(
        ['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard'],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        check=True,
    )
    paths = (ROOT / name for name in listed.stdout.decode().split('\0') if name)
    return [path for path in paths if path.is_file()]


def scripts() -> list[Path]:
    return [path for path in project_files() if path.read_bytes().startswith(b'#!')]


def test_make_alone_lists_every_target():
    targets = re.search(r'^\.PHONY: (.*)$', (ROOT / 'Makefile').read_text(), re.MULTILINE)[1].split()

    shown = subprocess.run(
        ['make', '--no-print-directory'], cwd=ROOT, stdout=subprocess.PIPE, check=True
    ).stdout.decode()

    assert [line.split()[0] for line in shown.splitlines()[1:]] == targets


def test_the_top_level_holds_only_what_belongs_there():
    assert {path.relative_to(ROOT).parts[0] for path in project_files()} == TOP_LEVEL


@pytest.mark.parametrize('what', FORBIDDEN)
def test_no_file_names(what):
    pattern = re.compile(FORBIDDEN[what].encode())

    assert [str(path.relative_to(ROOT)) for path in project_files() if pattern.search(path.read_bytes())] == []


def test_scripts_can_be_run_and_parsed():
    for script in scripts():
        assert script.stat().st_mode & 0o111, f'{script} is not executable'
        shell = script.read_text().splitlines()[0].split('/')[-1].split()[-1]
        subprocess.run([shell, '-n', str(script)], check=True)


def test_a_fresh_clone_is_tested_with_the_command_of_the_readme():
    assert '    make test ' in (ROOT / 'README.md').read_text()
    assert 'make test' in (ROOT / '.ci' / 'run').read_text().splitlines()


def test_the_installed_package_is_this_one():
    stated = re.search(r'^version = (.*)$', (ROOT / 'setup.cfg').read_text(), re.MULTILINE)[1]

    assert version('amphora') == stated


def test_the_test_process_is_not_patched():
    assert not any(monkey.is_module_patched(name) for name in ('socket', 'threading', 'time', 'subprocess'))


def test_the_architecture_page_shows_the_layers_that_are_checked():
    def layers(path: str, before: str) -> list[str]:
        below = (ROOT / path).read_text().partition(before)[2]
        return [line.strip() for line in re.match(r'(?:\s+[\w |]+\n)+', below)[0].splitlines() if line.strip()]

    assert layers('docs/topics/architecture.rst', '.. code-block:: text\n') == layers('setup.cfg', 'layers =\n')
