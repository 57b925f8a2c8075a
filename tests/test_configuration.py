"""Where options come from: arguments, the environment, a file; which goes before which; and mistakes in them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from amphora import AmqpRpcClient, AmqpRpcServer
from amphora.configuration import DEFAULT, MAX_FILE_BYTES, OPTIONS, resolve, variable_of
from amphora.settings import Settings, make_settings

DOCS = Path(__file__).parent.parent / 'docs'


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in os.environ:
        if variable.startswith('AMPHORA_'):
            monkeypatch.delenv(variable)


Configure = Callable[[str], Path]


@pytest.fixture
def configure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Configure:
    """Writes the file that the environment names."""

    def write(text: str) -> Path:
        path = tmp_path / 'amphora.toml'
        path.write_text(text)
        monkeypatch.setenv('AMPHORA_CONFIG', str(path))
        return path

    return write


def host_of(settings: Settings) -> dict[str, Any]:
    (host,) = settings.hosts
    return host


# -- each place --------------------------------------------------------------------------------------------------------

# Option, its text in the environment, in TOML, and what both mean.
EACH = [
    ('amqp_url', 'amqp://broker.example/x', '"amqp://broker.example/x"', 'amqp://broker.example/x'),
    ('amqp_host', 'broker.example', '"broker.example"', 'broker.example'),
    ('amqp_port', '5673', '5673', 5673),
    ('amqp_user', 'ann', '"ann"', 'ann'),
    ('amqp_password', '12345', '"12345"', '12345'),
    ('amqp_vhost', '/x', '"/x"', '/x'),
    ('amqp_ssl', 'true', 'true', True),
    ('heartbeat', '7.5', '7.5', 7.5),
    ('prefetch', '10', '10', 10),
    ('persistent', 'false', 'false', False),
    ('confirm', '0', 'false', False),
    ('queue_type', 'quorum', '"quorum"', 'quorum'),
    ('queue_size', '1000', '1000', 1000),
    ('request_ttl', '1.5', '1.5', 1.5),
    ('compression', 'gzip', '"gzip"', 'gzip'),
    ('compress_threshold', '4096', '4096', 4096),
]


def test_each_option_of_make_settings_is_one_of_each_place() -> None:
    assert [option for option, *_ in EACH] == list(OPTIONS)


@pytest.mark.parametrize(
    ('option', 'says'),
    [('prefech', 'there is no option prefech; is prefetch meant\\?'), ('colour', 'there is no option colour$')],
)
def test_an_option_that_does_not_exist_is_named(option: str, says: str) -> None:
    with pytest.raises(TypeError, match=says):
        make_settings(**{option: 3})


@pytest.mark.parametrize(('option', 'text', 'toml', 'value'), EACH, ids=[option for option, *_ in EACH])
def test_an_option_comes_from_the_environment_from_the_file_or_from_its_default(
    option: str, text: str, toml: str, value: object, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert resolve({})[option].where == DEFAULT

    path = configure(f'[amphora]\n{option} = {toml}\n')
    from_file = resolve({})[option]
    monkeypatch.setenv(variable_of(option), text)
    from_environment = resolve({})[option]

    assert (from_file.value, from_file.where) == (value, f'{path} [amphora]')
    assert (from_environment.value, from_environment.where) == (value, f'AMPHORA_{option.upper()}')
    assert type(from_file.value) is type(from_environment.value) is type(value)
    make_settings()


def test_what_is_given_reaches_the_settings(configure: Configure) -> None:
    configure(
        """
        [amphora]
        amqp_host = "broker.example"
        amqp_port = 5673
        amqp_user = "ann"
        amqp_password = "secret"
        amqp_vhost = "production"
        heartbeat = 7
        prefetch = 10
        persistent = false
        confirm = false
        queue_type = "classic"
        """
    )

    settings = make_settings()

    assert host_of(settings) == {
        'host': 'broker.example',
        'port': 5673,
        'user': 'ann',
        'password': 'secret',
        'vhost': 'production',
        'heartbeat': 7,
    }
    assert (settings.prefetch, settings.persistent, settings.confirm, settings.queue_type) == (
        10,
        False,
        False,
        'classic',
    )


def test_without_any_of_them_the_defaults_are_those_that_are_documented() -> None:
    settings = make_settings()

    assert host_of(settings) == {
        'host': '127.0.0.1',
        'port': None,
        'user': 'guest',
        'password': 'guest',
        'vhost': '/',
    }
    assert (settings.prefetch, settings.persistent, settings.confirm, settings.queue_type) == (250, True, True, None)


def test_an_argument_goes_before_the_environment_and_that_before_the_file(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure('[amphora]\nprefetch = 1\npersistent = false\nconfirm = false')
    monkeypatch.setenv('AMPHORA_PREFETCH', '2')
    monkeypatch.setenv('AMPHORA_PERSISTENT', 'true')

    settings = make_settings(prefetch=3)

    assert (settings.prefetch, settings.persistent, settings.confirm) == (3, True, False)


def test_none_as_an_argument_and_an_empty_variable_give_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('AMPHORA_PREFETCH', '')
    monkeypatch.setenv('AMPHORA_CONFIG', '')

    assert make_settings(prefetch=None, amqp_host=None).prefetch == 250


def test_several_urls_are_a_list_in_the_file_or_have_commas_between(configure: Configure) -> None:
    hosts = []
    for urls in ('["amqp://one", "amqp://two"]', '"amqp://one,amqp://two"'):
        configure(f'[amphora]\namqp_url = {urls}')
        hosts.append([host['host'] for host in make_settings().hosts])

    assert hosts == [['one', 'two'], ['one', 'two']]


def test_a_file_named_by_a_relative_path_is_shown_with_an_absolute_one(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = configure('[amphora]\nprefetch = 1')
    monkeypatch.chdir(path.parent)
    monkeypatch.setenv('AMPHORA_CONFIG', path.name)

    assert resolve({})['prefetch'].where == f'{path} [amphora]'


def test_a_file_that_nobody_names_is_not_read(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    path = configure('[amphora]\nprefetch = 1')
    monkeypatch.delenv('AMPHORA_CONFIG')
    monkeypatch.chdir(path.parent)

    assert make_settings().prefetch == 250


def test_tables_of_others_in_the_file_are_theirs(configure: Configure) -> None:
    configure('name = "shop"\n[amphora]\nprefetch = 1\n[database]\nprefetch = "never"')

    assert make_settings().prefetch == 1


# -- services ----------------------------------------------------------------------------------------------------------

SERVICES = """
[amphora]
prefetch = 1
queue_type = "classic"

[amphora.services.simplemath]
prefetch = 2

[amphora.services."with.dot"]
prefetch = 3
"""


@pytest.mark.parametrize(
    ('service', 'prefetch', 'table'),
    [
        (None, 1, '[amphora]'),
        ('other', 1, '[amphora]'),
        ('simplemath', 2, '[amphora.services.simplemath]'),
        ('with.dot', 3, '[amphora.services."with.dot"]'),
    ],
)
def test_the_table_of_a_service_goes_before_that_of_all(
    configure: Configure, service: str | None, prefetch: int, table: str
) -> None:
    path = configure(SERVICES)

    settings = resolve({}, service)

    assert (settings['prefetch'].value, settings['prefetch'].where) == (prefetch, f'{path} {table}')
    assert settings['queue_type'].value == 'classic'


def test_the_environment_goes_before_the_table_of_a_service(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(SERVICES)
    monkeypatch.setenv('AMPHORA_PREFETCH', '9')

    assert make_settings(service='simplemath').prefetch == 9


@pytest.mark.parametrize('kind', [AmqpRpcServer, AmqpRpcClient], ids=lambda kind: kind.__name__)
def test_clients_and_servers_look_for_the_table_of_their_service(kind: type, configure: Configure) -> None:
    configure(SERVICES + 'heartbeat = -1')

    kind('simplemath', **({'autostart': False} if kind is AmqpRpcClient else {}))
    with pytest.raises(ValueError, match=r'^heartbeat in .* \[amphora\.services\."with\.dot"\] must be from 0'):
        kind('with.dot')


def test_a_client_calls_through_the_broker_of_its_services_table(
    configure: Configure, server: Any, client: Any, amqp_url: str, service: str
) -> None:
    configure(f'[amphora]\namqp_url = "amqp://127.0.0.1:1/"\n[amphora.services."{service}"]\namqp_url = "{amqp_url}"')

    server(named={'add': lambda x, y: x + y}, amqp_url=None)

    assert client(amqp_url=None).call.add(2, 3) == 5


# -- which address -----------------------------------------------------------------------------------------------------


def place(monkeypatch: pytest.MonkeyPatch, configure: Configure, environment: dict[str, str], file: str) -> None:
    for option, text in environment.items():
        monkeypatch.setenv(variable_of(option), text)
    configure(f'[amphora]\n{file}')


@pytest.mark.parametrize(
    ('arguments', 'environment', 'file', 'user', 'host'),
    [
        # Within one place, a URL goes before parts.
        ({'amqp_url': 'amqp://a@one', 'amqp_host': 'two'}, {}, '', 'a', 'one'),
        ({}, {'amqp_url': 'amqp://a@one', 'amqp_host': 'two'}, '', 'a', 'one'),
        ({}, {}, 'amqp_url = "amqp://a@one"\namqp_host = "two"', 'a', 'one'),
        # The nearer URL.
        ({'amqp_url': 'amqp://a@one'}, {'amqp_url': 'amqp://b@two'}, 'amqp_url = "amqp://c@three"', 'a', 'one'),
        ({}, {'amqp_url': 'amqp://b@two'}, 'amqp_url = "amqp://c@three"', 'b', 'two'),
        # Parts of several places are put together.
        ({'amqp_host': 'one'}, {'amqp_user': 'b'}, 'amqp_host = "three"\namqp_user = "c"', 'b', 'one'),
        ({}, {'amqp_user': 'b'}, 'amqp_host = "three"', 'b', 'three'),
        # A URL before farther parts, and nothing of them is used.
        ({'amqp_url': 'amqp://one'}, {'amqp_user': 'b', 'amqp_host': 'two'}, 'amqp_user = "c"', 'guest', 'one'),
        ({}, {'amqp_url': 'amqp://two'}, 'amqp_user = "c"\namqp_host = "three"', 'guest', 'two'),
        # A nearer host before a farther URL, and nothing of that is used.
        ({'amqp_host': 'one'}, {}, 'amqp_url = "amqp://c@three"', 'guest', 'one'),
        ({}, {'amqp_host': 'two', 'amqp_user': 'b'}, 'amqp_url = "amqp://c@three"', 'b', 'two'),
        # The exception.
        ({'amqp_host': 'one', 'amqp_user': 'a'}, {'amqp_url': 'amqp://b@two'}, '', 'b', 'two'),
    ],
)
def test_the_address_is_a_url_or_parts_and_never_a_mixture(
    monkeypatch: pytest.MonkeyPatch,
    configure: Configure,
    arguments: dict[str, Any],
    environment: dict[str, str],
    file: str,
    user: str,
    host: str,
) -> None:
    place(monkeypatch, configure, environment, file)

    options = host_of(make_settings(**arguments))

    assert (options['user'], options['host']) == (user, host)


@pytest.mark.parametrize(
    ('arguments', 'environment', 'part'),
    [({'amqp_vhost': 'x'}, {}, 'amqp_vhost'), ({}, {'amqp_password': 'x'}, 'AMPHORA_AMQP_PASSWORD')],
)
def test_a_part_beside_a_url_that_is_farther_away_is_an_error_that_names_both(
    monkeypatch: pytest.MonkeyPatch,
    configure: Configure,
    arguments: dict[str, Any],
    environment: dict[str, str],
    part: str,
) -> None:
    place(monkeypatch, configure, environment, 'amqp_url = "amqp://three"')

    with pytest.raises(ValueError, match=rf'^{part} is a part of an address, and amqp_url in .* is a whole one'):
        make_settings(**arguments)


@pytest.mark.parametrize(
    ('arguments', 'environment', 'file', 'encrypted'),
    [
        ({}, {'amqp_url': 'amqp://one', 'amqp_ssl': 'true'}, '', True),
        ({'amqp_ssl': True}, {'amqp_url': 'amqp://one'}, '', True),
        ({}, {'amqp_host': 'one'}, 'amqp_ssl = true', True),
        # The scheme of a nearer URL says it.
        ({}, {'amqp_url': 'amqp://one'}, 'amqp_ssl = true', False),
        ({'amqp_url': 'amqp://one'}, {'amqp_ssl': 'true'}, '', False),
        ({'amqp_url': 'amqps://one'}, {'amqp_ssl': 'false'}, '', True),
    ],
)
def test_amqp_ssl_is_for_the_address_of_its_place_or_of_a_farther_one(
    monkeypatch: pytest.MonkeyPatch,
    configure: Configure,
    arguments: dict[str, Any],
    environment: dict[str, str],
    file: str,
    encrypted: bool,
) -> None:
    place(monkeypatch, configure, environment, file)

    assert ('ssl' in host_of(make_settings(**arguments))) is encrypted


@pytest.mark.parametrize(
    ('url', 'arguments', 'heartbeat'),
    [
        ('amqp://one?heartbeat=30', {}, 30),
        ('amqp://one', {}, 20),
        ('amqp://one?heartbeat=30', {'heartbeat': 40}, 40),
    ],
)
def test_heartbeat_is_that_of_the_nearest_place_that_says_it(
    monkeypatch: pytest.MonkeyPatch, configure: Configure, url: str, arguments: dict[str, Any], heartbeat: int
) -> None:
    place(monkeypatch, configure, {'amqp_url': url}, 'heartbeat = 20')

    assert host_of(make_settings(**arguments))['heartbeat'] == heartbeat


# -- mistakes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ('option', 'text', 'said'),
    [
        ('prefetch', 'many', ' must be a whole number'),
        ('prefetch', '1.5', ' must be a whole number'),
        ('prefetch', '0', ' must be from 1 to 65535, not 0'),
        ('persistent', 'yes', ' must be true or false'),
        ('heartbeat', 'often', ' must be a number of seconds'),
        ('heartbeat', 'nan', ' must be from 0 to 65535 seconds, not nan'),
        ('queue_type', 'quorom', ' must be classic or quorum'),
        ('amqp_port', 'tcp://10.0.0.1:5672', ' must be a whole number'),
        ('amqp_port', '70000', ' must be from 1 to 65535, not 70000'),
        ('amqp_host', 'ann@broker', ' must be the name or the address of a host, and no URL'),
        ('amqp_vhost', 'x' * 256, ' is 256 bytes long'),
        ('amqp_url', 'http://nowhere/', ": unknown scheme 'http' in an AMQP URI"),
        ('amqp_ssl', 'on', ' must be true or false'),
    ],
)
def test_a_wrong_value_in_the_environment_is_an_error_that_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, option: str, text: str, said: str
) -> None:
    monkeypatch.setenv(variable_of(option), text)

    with pytest.raises(ValueError, match='^' + re.escape(variable_of(option) + said)):
        make_settings()


@pytest.mark.parametrize(
    ('option', 'toml', 'said'),
    [
        ('prefetch', '"10"', ' must be a whole number'),
        ('prefetch', 'true', ' must be a whole number'),
        ('prefetch', '0', ' must be from 1 to 65535, not 0'),
        ('confirm', '1', ' must be true or false'),
        ('heartbeat', '1979-05-27', ' must be a number of seconds'),
        ('heartbeat', '-1', ' must be from 0 to 65535 seconds, not -1'),
        ('queue_type', '"stream"', ' must be classic or quorum'),
        ('amqp_password', '12345', ' must be text'),
        ('amqp_url', '[1]', ' must be a URL or a list of URLs'),
        ('amqp_url', '[]', ' is an empty list: give at least one URL'),
        ('amqp_url', '"amqp://h:port"', ': the port of an AMQP URI is not a number'),
    ],
)
def test_a_wrong_value_in_the_file_is_an_error_that_names_key_file_and_table(
    configure: Configure, option: str, toml: str, said: str
) -> None:
    path = configure(f'[amphora]\n{option} = {toml}')

    with pytest.raises((ValueError, TypeError)) as caught:
        make_settings()

    assert str(caught.value).startswith(f'{option} in {path} [amphora]{said}')


def test_tls_that_contradicts_its_url_is_an_error_that_names_the_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('AMPHORA_AMQP_URL', 'amqps://one')
    monkeypatch.setenv('AMPHORA_AMQP_SSL', 'false')

    with pytest.raises(ValueError, match='AMPHORA_AMQP_SSL=False contradicts an amqps URL'):
        make_settings()


@pytest.mark.parametrize(
    ('text', 'said'),
    [
        ('[amphora]\nprefech = 1', 'unknown option prefech in {path} [amphora]; is prefetch meant?'),
        ('[amphora]\nspeed = 1', 'unknown option speed in {path} [amphora]; the options are amqp_url, amqp_host'),
        (
            '[amphora.services.other]\nqueue-type = "quorum"',
            'unknown option queue-type in {path} [amphora.services.other]; is queue_type meant?',
        ),
        ('[amphora]\nservices = 5', '{path} [amphora.services] must be a table'),
        ('[amphora.services]\nmath = 5', '{path} [amphora.services.math] must be a table'),
        ('amphora = 5', '{path} [amphora] must be a table'),
        ('prefetch = 5', '{path} has no table [amphora]'),
        ('', '{path} has no table [amphora]'),
        ('[amphora]\nx = ' + '9' * 5000, '{path} is not TOML: '),
        ('x = ' + '[' * 100_000, '{path} is n'),
        ('#' * (MAX_FILE_BYTES + 1), 'AMPHORA_CONFIG: {path} is longer than 1048576 bytes'),
    ],
    ids=lambda text: text[:30],
)
def test_a_file_that_makes_no_sense_is_an_error_that_says_where(configure: Configure, text: str, said: str) -> None:
    path = configure(text)

    with pytest.raises((ValueError, TypeError)) as caught:
        make_settings()

    assert str(caught.value).startswith(said.format(path=path))


@pytest.mark.parametrize('text', ['[amphora]\n\nprefetch = \n', '[amphora]\nprefetch = 1\nprefetch = 2\n'])
def test_a_file_that_is_not_toml_is_an_error_with_its_line(configure: Configure, text: str) -> None:
    configure(text)

    with pytest.raises(ValueError, match=r'amphora\.toml is not TOML: .+ \(at line 3, column \d+\)$'):
        make_settings()


def test_a_file_that_is_not_utf_8_is_an_error_with_its_line(configure: Configure) -> None:
    path = configure('')
    path.write_bytes(b'[amphora]\n# caf\xe9\n')

    with pytest.raises(ValueError, match=r'amphora\.toml is not UTF-8 \(at line 2\)$'):
        make_settings()


@pytest.mark.parametrize(
    ('name', 'said'),
    [
        ('missing.toml', 'AMPHORA_CONFIG: cannot read {path}: No such file or directory'),
        ('', 'AMPHORA_CONFIG: {path} is no regular file'),
        ('pipe', 'AMPHORA_CONFIG: {path} is no regular file'),
        ('amphora.toml/x', 'AMPHORA_CONFIG: cannot read {path}: Not a directory'),
    ],
)
def test_a_file_that_cannot_be_read_is_an_error_that_names_it(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, name: str, said: str
) -> None:
    directory = configure('').parent
    os.mkfifo(directory / 'pipe')
    path = directory / name
    monkeypatch.setenv('AMPHORA_CONFIG', str(path))

    with pytest.raises(ValueError, match='^' + re.escape(said.format(path=path)) + '$'):
        make_settings()


# -- what it costs, and what is documented -----------------------------------------------------------------------------


@pytest.mark.parametrize(('variable', 'imported'), [({}, '[]'), ({'AMPHORA_CONFIG': '/dev/null'}, '[]')])
def test_no_parser_is_imported_without_a_file(variable: dict[str, str], imported: str) -> None:
    source = (
        'import sys, amphora.settings\n'
        'try: amphora.settings.make_settings()\n'
        'except ValueError: pass\n'
        'print([name for name in ("tomllib", "tomli", "difflib") if name in sys.modules])'
    )

    said = subprocess.run(
        [sys.executable, '-c', source], env={**os.environ, **variable}, stdout=subprocess.PIPE, check=True
    )

    assert said.stdout.decode().strip() == imported


def test_the_file_of_the_documentation_makes_sense(configure: Configure) -> None:
    page = (DOCS / 'how-to' / 'configure.rst').read_text()
    (example,) = re.findall(r'^\.\. code-block:: text\n\n((?:   .*\n|\n)+)', page, re.MULTILINE)
    configure(re.sub('^   ', '', example, flags=re.MULTILINE))

    assert host_of(make_settings())['user'] == 'ann'
    assert make_settings().prefetch == 20
    assert make_settings(service='reports').prefetch == 1


def test_the_reference_has_each_option() -> None:
    page = (DOCS / 'reference' / 'options.rst').read_text()

    assert re.findall(r'^``(\w+)`` ', page.partition('What a URL can say')[0], re.MULTILINE) == list(OPTIONS)
