"""amphora config: each option and where it comes from; and that the other commands take them from there as well."""

import json
from pathlib import Path

import pytest

from amphora.configuration import OPTIONS
from tests.cli.conftest import Run

FILE = """
[amphora]
amqp_host = "broker.example"
amqp_password = "not-to-be-seen"
prefetch = 20

[amphora.services.reports]
prefetch = 1
"""


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / 'amphora.toml'
    path.write_text(FILE)
    return str(path)


def rows_of(stdout: str) -> dict[str, tuple[str, str]]:
    """Value and origin by option."""
    heading, *lines = (line.rstrip().split(maxsplit=2) for line in stdout.splitlines())
    assert heading == ['option', 'value', 'from']
    return {option: (value, source) for option, value, source in lines}


def test_without_configuration_each_option_has_its_default(run: Run):
    status, stdout, stderr = run('config')

    rows = rows_of(stdout)
    assert (status, stderr) == (0, '')
    assert list(rows) == list(OPTIONS)
    assert {source for _, source in rows.values()} == {'default'}
    assert rows['amqp_url'] == ('-', 'default')
    assert rows['amqp_host'] == ('127.0.0.1', 'default')
    assert rows['amqp_password'] == ('***', 'default')
    assert rows['persistent'] == ('true', 'default')


def test_each_option_comes_with_the_place_that_gives_it(run: Run, config: str):
    status, stdout, stderr = run('config', AMPHORA_CONFIG=config, AMPHORA_PERSISTENT='false')

    rows = rows_of(stdout)
    assert (status, stderr) == (0, '')
    assert rows['amqp_host'] == ('broker.example', f'{config} [amphora]')
    assert rows['prefetch'] == ('20', f'{config} [amphora]')
    assert rows['persistent'] == ('false', 'AMPHORA_PERSISTENT')
    assert rows['confirm'] == ('true', 'default')


def test_a_service_is_shown_what_its_table_says(run: Run, config: str):
    rows = rows_of(run('config', '--service', 'reports', AMPHORA_CONFIG=config).stdout)

    assert rows['prefetch'] == ('1', f'{config} [amphora.services.reports]')
    assert rows['amqp_host'] == ('broker.example', f'{config} [amphora]')


def test_what_a_url_goes_before_is_said(run: Run, config: str):
    rows = rows_of(
        run('config', '--url', 'amqp://one,amqp://two/x', AMPHORA_CONFIG=config, AMPHORA_HEARTBEAT='5').stdout
    )

    assert rows['amqp_url'] == ('amqp://one,amqp://two/x', '--url')
    assert rows['amqp_host'] == ('-', f'amqp_url, not {config} [amphora]')
    assert rows['amqp_user'] == ('-', 'amqp_url')
    assert rows['heartbeat'] == ('5', 'AMPHORA_HEARTBEAT, unless amqp_url says it')


def test_a_url_that_a_host_goes_before_is_said(run: Run, tmp_path: Path):
    path = tmp_path / 'amphora.toml'
    path.write_text('[amphora]\namqp_url = "amqp://ann:not-to-be-seen@x"')

    rows = rows_of(run('config', AMPHORA_CONFIG=str(path), AMPHORA_AMQP_HOST='y').stdout)

    assert rows['amqp_url'] == ('-', f'amqp_host, not {path} [amphora]')
    assert rows['amqp_host'] == ('y', 'AMPHORA_AMQP_HOST')


def test_json_holds_the_same(run: Run, config: str):
    status, stdout, _ = run('config', '--json', AMPHORA_CONFIG=config, AMPHORA_CONFIRM='false')

    rows = json.loads(stdout)
    assert status == 0
    assert [row['option'] for row in rows] == list(OPTIONS)
    assert {'option': 'confirm', 'value': False, 'source': 'AMPHORA_CONFIRM'} in rows
    assert {'option': 'prefetch', 'value': 20, 'source': f'{config} [amphora]'} in rows
    assert {'option': 'amqp_password', 'value': '***', 'source': f'{config} [amphora]'} in rows
    assert {'option': 'queue_type', 'value': None, 'source': 'default'} in rows


@pytest.mark.parametrize('flags', [(), ('--json',), ('--debug',)])
def test_no_password_is_shown(run: Run, config: str, flags: tuple[str, ...]):
    urls = 'amqp://ann:not-to-be-seen@x/v?heartbeat=5,amqps://bob:not-to-be-seen@y:5671,amqp://eve@z,amqp://q:1'

    said = [
        run('config', *flags, AMPHORA_CONFIG=config),
        run('config', *flags, AMPHORA_AMQP_URL=urls),
        run('config', *flags, '--url', urls),
        run('config', *flags, AMPHORA_AMQP_PASSWORD='not-to-be-seen'),
    ]

    assert [each.status for each in said] == [0, 0, 0, 0]
    assert 'not-to-be-seen' not in str(said)
    for shown in (
        'amqp://ann:***@x/v?heartbeat=5',
        'amqps://bob:***@y:5671',
        'amqp://eve@z',
        'amqp://q:1',
    ):
        assert shown in said[1].stdout
        assert shown in said[2].stdout


def test_a_terminal_gets_lines_that_fit(terminal, amqp_url: str):
    shown = terminal('config')

    assert shown.wait() == 0
    assert 'AMPHORA_AMQP_URL' in shown.shown
    assert max(len(line) for line in shown.shown.splitlines()) <= 80


def test_what_makes_no_sense_is_one_line_and_wrong_usage(run: Run, tmp_path: Path):
    path = tmp_path / 'amphora.toml'
    path.write_text('[amphora]\nprefech = 20')

    assert run('config', AMPHORA_CONFIG=str(path)) == (
        2,
        '',
        f'amphora: unknown option prefech in {path} [amphora]; is prefetch meant?\n',
    )
    assert run('config', AMPHORA_PREFETCH='many') == (2, '', 'amphora: AMPHORA_PREFETCH must be a whole number\n')
    assert run('config', AMPHORA_CONFIG='missing.toml') == (
        2,
        '',
        f'amphora: AMPHORA_CONFIG: cannot read {tmp_path}/missing.toml: No such file or directory\n',
    )


def test_a_variable_that_is_mistyped_is_told(run: Run):
    status, stdout, stderr = run('config', AMPHORA_PREFECH='20', AMPHORA_RELEASE='1')

    assert status == 0
    assert rows_of(stdout)['prefetch'] == ('250', 'default')
    assert stderr == 'amphora: AMPHORA_PREFECH means nothing; is AMPHORA_PREFETCH meant?\n'


def test_the_name_of_the_files_variable_may_be_mistyped_too(run: Run):
    stderr = run('config', AMPHORA_CONFG='/etc/amphora.toml').stderr

    assert stderr == 'amphora: AMPHORA_CONFG means nothing; is AMPHORA_CONFIG meant?\n'


# -- the other commands ------------------------------------------------------------------------------------------------


def add(x: int, y: int) -> int:
    return x + y


def test_commands_take_the_broker_from_the_file(run: Run, serving, service: str, amqp_url: str, tmp_path: Path):
    serving(add)
    path = tmp_path / 'amphora.toml'
    path.write_text(f'[amphora]\namqp_url = "{amqp_url}"')

    assert run('call', service, 'add', '2', '3', AMPHORA_CONFIG=str(path)) == (0, '5\n', '')
    assert run('doctor', AMPHORA_CONFIG=str(path)).status == 0
    assert run('dead', service, AMPHORA_CONFIG=str(path)).status == 0
    assert service in run('list', service, AMPHORA_CONFIG=str(path)).stdout


def test_commands_take_the_broker_of_a_service_from_its_table(
    run: Run, serving, service: str, amqp_url: str, tmp_path: Path
):
    serving(add)
    path = tmp_path / 'amphora.toml'
    path.write_text(
        f'[amphora]\namqp_url = "amqp://127.0.0.1:1"\n[amphora.services."{service}"]\namqp_url = "{amqp_url}"'
    )

    assert run('call', service, 'add', '2', '3', AMPHORA_CONFIG=str(path)) == (0, '5\n', '')
    assert run('dead', service, AMPHORA_CONFIG=str(path)).status == 0
    assert run('list', service, AMPHORA_CONFIG=str(path)).status == 0
    assert run('list', AMPHORA_CONFIG=str(path)).status == 4


SERVED = """
from amphora import AmqpRpcServer

server = AmqpRpcServer({service!r})


@server.add_function
def options():
    return server._settings.prefetch
"""


def test_serve_hands_the_file_to_its_workers(run: Run, start, service: str, amqp_url: str, tmp_path: Path):
    (tmp_path / 'configured.py').write_text(SERVED.format(service=service))
    path = tmp_path / 'amphora.toml'
    path.write_text(f'[amphora]\namqp_url = "{amqp_url}"\n[amphora.services."{service}"]\nprefetch = 7')
    start('serve', 'configured:server', AMPHORA_CONFIG=str(path)).wait_ready(1)

    assert run('call', service, 'options', '--url', amqp_url).stdout == '7\n'


def test_serve_with_a_url_leaves_aside_what_was_for_another_broker(
    run: Run, start, service: str, amqp_url: str, tmp_path: Path
):
    (tmp_path / 'configured.py').write_text(SERVED.format(service=service))
    path = tmp_path / 'amphora.toml'
    path.write_text('[amphora]\namqp_host = "broker.invalid"\namqp_ssl = true')
    start(
        'serve', 'configured:server', '--url', amqp_url, AMPHORA_CONFIG=str(path), AMPHORA_AMQP_SSL='true'
    ).wait_ready(1)

    assert run('call', service, 'options', '--url', amqp_url, AMPHORA_AMQP_SSL='true').stdout == '250\n'


@pytest.mark.parametrize('command', ['call', 'list', 'dead', 'shell', 'doctor', 'serve'])
def test_a_configuration_that_makes_no_sense_ends_each_command_with_one_line(run: Run, command: str):
    arguments = {'call': ('x', 'f'), 'dead': ('x',), 'shell': ('x',), 'serve': ('configured:server',)}

    assert run(command, *arguments.get(command, ()), AMPHORA_PREFETCH='many') == (
        2,
        '',
        'amphora: AMPHORA_PREFETCH must be a whole number\n',
    )


def test_an_option_whose_package_is_missing_is_wrong_usage_and_says_what_to_install(run: Run, tmp_path: Path) -> None:
    # What Python does when a package is not there: importing it raises ImportError.
    (tmp_path / 'sitecustomize.py').write_text("import sys\n\nsys.modules['zstandard'] = None\n")

    assert run('config', AMPHORA_COMPRESSION='zstd', PYTHONPATH=str(tmp_path)) == (
        2,
        '',
        'amphora: zstd needs the package zstandard: install amphora[zstd]\n',
    )
