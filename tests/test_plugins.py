"""Files of a directory as plugins."""

import sys
from pathlib import Path

import pytest

from amphora import AmqpRpcServer
from amphora.arguments import Annotations
from amphora.plugins import plugin_functions

MARKED = """
import amphora

@amphora.function
def {name}():
    return {value!r}
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = tmp_path / 'plugins'
    made.mkdir()
    return made


def write(directory: Path, file: str, name: str, value: str = '') -> Path:
    path = directory / file
    path.write_text(MARKED.format(name=name, value=value))
    return path


def test_marked_functions_of_all_plugins_are_found_in_the_order_of_the_files(directory):
    write(directory, 'plugin_b.py', 'second', 'two')
    write(directory, 'plugin_a.py', 'first', 'one')
    write(directory, 'other.py', 'third')
    (directory / 'plugin_data.txt').write_text('no Python')

    found = plugin_functions(directory)

    assert {name: function() for name, function in found.items()} == {'first': 'one', 'second': 'two'}
    assert list(found) == ['first', 'second']


def test_files_of_the_same_name_in_two_directories_are_two_plugins(tmp_path):
    for name in ('here', 'there'):
        (tmp_path / name).mkdir()
        write(tmp_path / name, 'plugin_same.py', 'where', name)

    found = [plugin_functions(tmp_path / name)['where']() for name in ('here', 'there')]

    assert found == ['here', 'there']
    assert 'plugin_same' not in sys.modules


def test_a_plugin_is_imported_once(directory):
    write(directory, 'plugin_once.py', 'once')

    assert plugin_functions(directory)['once'] is plugin_functions(str(directory))['once']


def test_a_plugin_may_define_classes_that_look_for_their_module(directory):
    (directory / 'plugin_dataclass.py').write_text(
        'from __future__ import annotations\n'
        'import dataclasses, msgspec, amphora\n'
        '@dataclasses.dataclass\n'
        'class Point:\n'
        '    x: int\n'
        'class Line(msgspec.Struct):\n'
        '    start: Point\n'
        '@amphora.function(validate=True)\n'
        'def show(line: Line): return line.start.x\n'
    )
    show = plugin_functions(directory)['show']

    assert Annotations(show).before(show)({'start': {'x': 5}}) == 5


def test_a_function_that_two_plugins_import_from_elsewhere_counts_once(directory):
    for file in ('plugin_a.py', 'plugin_b.py'):
        (directory / file).write_text('from tests.test_functions import bare\n')

    assert list(plugin_functions(directory)) == ['bare']


def test_a_directory_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=f'no directory {tmp_path}/nowhere'):
        plugin_functions(tmp_path / 'nowhere')


def test_a_file_is_no_directory(directory):
    path = write(directory, 'plugin_a.py', 'a')

    with pytest.raises(NotADirectoryError, match=str(path)):
        plugin_functions(path)


def test_a_directory_without_plugins_is_named(directory):
    with pytest.raises(FileNotFoundError, match=rf'no file plugin\*.py in {directory}'):
        plugin_functions(directory)


@pytest.mark.parametrize(
    ('source', 'says'),
    [
        ('x = 1\n1 / 0\n', 'line 2, cannot be imported: ZeroDivisionError: division by zero'),
        ('import sys\nsys.exit(3)\n', 'line 2, cannot be imported: SystemExit: 3'),
        ('def broken(:\n', 'cannot be imported: SyntaxError: .*line 1'),
        ('import amphora\n@amphora.function(timeout=-1)\ndef f(): ...\n', 'ValueError: timeout must be from 0'),
    ],
)
def test_a_file_that_cannot_be_imported_is_named_with_the_reason(directory, source, says):
    write(directory, 'plugin_fine.py', 'fine')
    path = directory / 'plugin_wrong.py'
    path.write_text(source)
    before = set(sys.modules)

    with pytest.raises(ImportError, match=f'plugin {path}.*{says}') as caught:
        plugin_functions(directory)

    assert caught.value.path == str(path)
    assert [name for name in set(sys.modules) - before if 'plugin_wrong' in name] == []


def test_a_file_that_was_mended_is_imported_again(directory):
    path = directory / 'plugin_mended.py'
    path.write_text('1 / 0')
    with pytest.raises(ImportError):
        plugin_functions(directory)

    write(directory, 'plugin_mended.py', 'mended', 'of a different length')

    assert plugin_functions(directory)['mended']() == 'of a different length'


def test_a_plugin_without_marked_functions_is_named(directory):
    path = directory / 'plugin_empty.py'
    path.write_text('def forgotten(): ...\n')

    with pytest.raises(ValueError, match=f'{path}: no function is marked'):
        plugin_functions(directory)


def test_two_plugins_with_functions_of_one_name_are_named(directory):
    paths = [write(directory, file, 'same') for file in ('plugin_a.py', 'plugin_b.py')]

    with pytest.raises(ValueError, match=f"{paths[0]} and {paths[1]}: both have a function 'same'"):
        plugin_functions(directory)


def test_one_that_leads_nowhere_is_named(directory):
    write(directory, 'plugin_a.py', 'a')
    (directory / 'plugin_b.py').symlink_to(directory / 'gone.py')

    with pytest.raises(ImportError, match='plugin_b'):
        plugin_functions(directory)


def test_when_one_of_the_functions_cannot_be_offered_none_is(directory):
    write(directory, 'plugin_a.py', 'a')
    (directory / 'plugin_b.py').write_text(
        'import amphora\n\n@amphora.function(validate=True)\ndef b(x: complex):\n    return 1\n'
    )
    server = AmqpRpcServer('plugins')

    with pytest.raises(TypeError, match='complex'):
        server.load_plugins(directory)

    assert list(server._functions) == []
