"""`AmqpUrl`: what each part of a URI becomes, what is refused, and that nothing ever shows the password."""

from __future__ import annotations

import pickle
import traceback
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from amphora.amqp.url import AmqpUrl

PASSWORD = 'S3kr1tS3kr1t'


def failure(url: str) -> str:
    """All that a log would show of the error that parsing `url` raises."""
    with pytest.raises(ValueError, match='AMQP URI') as caught:
        AmqpUrl.parse(url)
    return ''.join(traceback.format_exception(caught.type, caught.value, None))


# Appendix A of the specification; where it says absent, AmqpUrl has its default.
@pytest.mark.parametrize(
    ('url', 'expected'),
    [
        ('amqp://user:pass@host:10000/vhost', AmqpUrl('host', 10000, 'user', 'pass', 'vhost')),
        ('amqp://user%61:%61pass@ho%61st:10000/v%2fhost', AmqpUrl('hoast', 10000, 'usera', 'apass', 'v/host')),
        ('amqp://', AmqpUrl('localhost', 5672, 'guest', 'guest', '/')),
        ('amqp://user@', AmqpUrl(user='user')),
        ('amqp://user:pass@', AmqpUrl(user='user', password='pass')),
        ('amqp://host', AmqpUrl('host')),
        ('amqp://:10000', AmqpUrl(port=10000)),
        ('amqp:///vhost', AmqpUrl(vhost='vhost')),
        ('amqp://host/%2f', AmqpUrl('host', vhost='/')),
        ('amqp://[::1]', AmqpUrl('::1')),
    ],
)
def test_the_examples_of_the_specification_parse_as_it_says(url: str, expected: AmqpUrl) -> None:
    assert AmqpUrl.parse(url) == expected


@pytest.mark.parametrize('url', ['amqp://:@/', 'amqp://host/', 'amqp://guest:guest@host/', 'amqp://host/?heartbeat=5'])
def test_unlike_the_specification_a_bare_trailing_slash_is_the_default_vhost(url: str) -> None:
    assert AmqpUrl.parse(url).vhost == '/'


def test_empty_user_and_password_are_not_absent_ones() -> None:
    assert AmqpUrl.parse('amqp://:@host') == AmqpUrl('host', user='', password='')
    assert AmqpUrl.parse('amqp://user:@host').password == ''
    assert AmqpUrl.parse('amqp://user@host').password == 'guest'


def test_amqps_means_tls_and_its_own_port() -> None:
    assert AmqpUrl.parse('amqps://host') == AmqpUrl('host', 5671, tls=True)
    assert AmqpUrl.parse('AMQPS://host:5672') == AmqpUrl('host', 5672, tls=True)
    assert AmqpUrl.parse('amqp://host').tls is False
    assert AmqpUrl.parse('amqp://host:').port == 5672


def test_ipv6_hosts_are_given_without_their_brackets() -> None:
    assert AmqpUrl.parse('amqp://user:pass@[2001:db8::7]:5673/v') == AmqpUrl('2001:db8::7', 5673, 'user', 'pass', 'v')
    assert AmqpUrl.parse('amqp://[fe80::1%25eth0]').host == 'fe80::1%eth0'


def test_everything_is_percent_decoded_as_utf8_and_a_plus_stays_a_plus() -> None:
    url = AmqpUrl.parse('amqps://%C3%BC+:%2F%3F%23%40%3A@h/%E2%82%AC?name=a%26b+c%3Dd&cacertfile=/etc/my%20ca.pem')
    assert (url.user, url.password, url.vhost) == ('ü+', '/?#@:', '€')
    assert (url.name, url.cacertfile) == ('a&b+c=d', '/etc/my ca.pem')


def test_a_password_may_hold_colons() -> None:
    assert AmqpUrl.parse('amqp://user:a:b@host').password == 'a:b'


def test_query_parameters_become_options() -> None:
    url = AmqpUrl.parse(
        'amqps://host/v?heartbeat=5&connection_timeout=10500&channel_max=64&frame_max=8192&name=worker%201'
        '&auth_mechanism=plain&auth_mechanism=external&verify=verify_none&server_name_indication=broker'
        '&cacertfile=/ca.pem&certfile=/cert.pem&keyfile=/key.pem'
    )
    assert url == AmqpUrl(
        'host',
        5671,
        vhost='v',
        tls=True,
        heartbeat=5,
        connect_timeout=10.5,
        channel_max=64,
        frame_max=8192,
        auth_mechanisms=('PLAIN', 'EXTERNAL'),
        name='worker 1',
        verify=False,
        server_hostname='broker',
        cacertfile='/ca.pem',
        certfile='/cert.pem',
        keyfile='/key.pem',
    )
    assert AmqpUrl.parse('amqps://host?verify=verify_peer').verify is True
    assert AmqpUrl.parse('amqps://host').verify is None


def test_a_query_needs_no_path_and_may_have_empty_items() -> None:
    assert AmqpUrl.parse('amqp://host?heartbeat=5') == AmqpUrl('host', heartbeat=5)
    assert AmqpUrl.parse('amqp://host?&heartbeat=0&') == AmqpUrl('host', heartbeat=0)
    assert AmqpUrl.parse('amqp://host?') == AmqpUrl('host')


def test_zero_is_a_value_and_not_an_absence() -> None:
    url = AmqpUrl.parse('amqp://host?heartbeat=0&channel_max=0&frame_max=0')
    assert (url.heartbeat, url.channel_max, url.frame_max) == (0, 0, 0)


@pytest.mark.parametrize(
    ('url', 'says'),
    [
        ('', 'must begin with amqp:// or amqps://'),
        ('host:5672', 'must begin with amqp:// or amqps://'),
        ('amqp:host', 'must begin with amqp:// or amqps://'),
        ('http://host', "unknown scheme 'http'"),
        ('://host', 'unknown scheme in'),
        ('amqp://host:http', 'the port .* is not a number'),
        ('amqp://host:٥٦٧٢', 'the port .* is not a number'),
        ('amqp://host:-1', 'the port .* is not a number'),
        ('amqp://host:0', 'the port .* must be 1 to 65535'),
        ('amqp://host:65536', 'the port .* must be 1 to 65535'),
        ('amqp://host:' + '9' * 5000, 'the port .* must be 1 to 65535'),
        ('amqp://::1', r'goes in brackets: \[::1\]'),
        ('amqp://[::1', r"must end with '\]'"),
        ('amqp://[::1]5672', r"must end with '\]'"),
        ('amqp://[host]', 'not an IPv6 address'),
        ('amqp://host/a/b', 'one segment; .* written %2F'),
        ('amqp://host//', 'one segment; .* written %2F'),
        ('amqp://host/' + 'v' * 256, 'longer than 255 bytes'),
        ('amqp://host/' + quote('ü' * 128), 'longer than 255 bytes'),
        ('amqp://host/%zz', "'%' in the virtual host .* write it as %25"),
        ('amqp://user%@host', "'%' in the user .* write it as %25"),
        ('amqp://host/%ff', 'virtual host .* is not UTF-8'),
        ('amqp://host/\udcff', 'virtual host .* is not UTF-8'),
        ('amqp://us%00er@host', 'user .* must not contain a NUL'),
        ('amqp://host /v', 'space or control character'),
        ('amqp://host/v\n', 'space or control character'),
        ('amqp://host/#v', 'must be written %23'),
        ('amqp://host?heartbaet=5', "unknown query parameter 'heartbaet' .* parameters are auth_mechanism, cacertfile"),
        ('amqp://host?heartbeat', 'heartbeat .* has no value'),
        ('amqp://host?name=', 'name .* has no value'),
        ('amqp://host?heartbeat=5&heartbeat=6', 'heartbeat .* more than once'),
        ('amqp://host?heartbeat=soon', "heartbeat .* a whole number of seconds from 0 to 65535, not 'soon'"),
        ('amqp://host?heartbeat=65536', 'heartbeat .* a whole number of seconds'),
        ('amqp://host?heartbeat=1.5', 'heartbeat .* a whole number of seconds'),
        ('amqp://host?heartbeat=-1', 'heartbeat .* a whole number of seconds'),
        ('amqp://host?connection_timeout=0', 'connection_timeout .* whole number of milliseconds from 1'),
        ('amqp://host?channel_max=65536', 'channel_max .* whole number of channels from 0 to 65535'),
        ('amqp://host?frame_max=4095', 'frame_max .* 0 or a whole number of bytes from 4096'),
        ('amqp://host?auth_mechanism=crdemo', 'auth_mechanism .* one of amqplain, external, plain'),
        ('amqps://host?verify=true', 'verify .* verify_peer or verify_none'),
        ('amqps://host?server_name_indication=disable', 'server_name_indication .* verify=verify_none'),
        ('amqps://host?keyfile=/key.pem', 'keyfile .* needs a certfile'),
        ('amqp://host?verify=verify_peer', 'verify .* for the amqps scheme only'),
    ],
)
def test_what_cannot_be_understood_is_an_error_that_says_what_is_wrong_where(url: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        AmqpUrl.parse(url)


def test_only_text_is_parsed() -> None:
    with pytest.raises(TypeError, match='must be a str, not bytes'):
        AmqpUrl.parse(b'amqp://host')  # type: ignore[arg-type]


@pytest.mark.parametrize(
    'url',
    [
        'user:{}@host',
        'amqpx://user:{}@host',
        'user:{}://host',
        'amqp://user:{}@host:port',
        'amqp://user:{}@host:99999',
        'amqp://user:{}@[host]',
        'amqp://user:{}@::1',
        'amqp://user:{}@host/a/b',
        'amqp://user:{}@host?a=b',
        'amqp://user:{}@host?heartbeat=x',
        'amqp://user:{}%@host',
        'amqp://user:{}%ff@host',
        'amqp://user:{}%00@host',
        'amqp://user:{}\n@host',
        # without the host, with its separators not encoded
        'amqp://user:{}',
        'amqp://user:1:{}',
        'amqp://user:/{}@host',
        'amqp://user:1/{}@host',
        'amqp://user:1?{}@host',
        'amqp://user:1?{}=1@host',
        'amqp://user:1?heartbeat={}@host',
        'amqp://user:1#{}@host',
        'amqp://user:1@{}@host',
        'amqp://user:1@a?{}@host',
        'amqp://user:{}://x@host',
    ],
)
def test_no_error_shows_the_password(url: str) -> None:
    assert PASSWORD not in failure(url.format(PASSWORD))


@given(st.text('/?#@:[]%& =+.\tü', max_size=6), st.text('/?#@:[]%& =+.\tü', max_size=6))
def test_no_error_and_no_repr_shows_a_password_that_was_not_encoded(before: str, after: str) -> None:
    url = f'amqp://user:{before}{PASSWORD}{after}@host/v'
    try:
        parsed = AmqpUrl.parse(url)
    except ValueError as error:
        shown = str(error)
    else:
        shown = repr(parsed) + str(parsed)
    assert PASSWORD not in shown


def test_repr_and_str_show_everything_but_the_password() -> None:
    url = AmqpUrl.parse(f'amqps://us%3Aer:{PASSWORD}@[::1]:5673/v%2fh?heartbeat=5')
    assert str(url) == 'amqps://us%3Aer:***@[::1]:5673/v%2Fh'
    assert repr(url) == '<AmqpUrl amqps://us%3Aer:***@[::1]:5673/v%2Fh>'
    assert (
        f'{AmqpUrl()} {[AmqpUrl()]}' == 'amqp://guest:***@localhost:5672/ [<AmqpUrl amqp://guest:***@localhost:5672/>]'
    )


def test_a_url_is_a_value() -> None:
    url = AmqpUrl.parse('amqp://host')
    assert url == AmqpUrl('host')
    assert hash(url) == hash(AmqpUrl('host'))
    assert pickle.loads(pickle.dumps(url)) == url  # noqa: S301 - its own bytes
    with pytest.raises(AttributeError):
        url.host = 'other'  # type: ignore[misc]


words = st.text(st.characters(exclude_categories=['Cs'], exclude_characters='\0'))


@given(
    user=words,
    password=words,
    host=st.from_regex('[a-z0-9][a-z0-9.-]{0,30}', fullmatch=True) | st.ip_addresses().map(str),
    port=st.integers(1, 65535),
    vhost=words.filter(lambda name: 0 < len(name.encode()) <= 255),
    tls=st.booleans(),
    name=words.filter(bool),
)
def test_what_is_percent_encoded_comes_back_as_it_was(
    user: str, password: str, host: str, port: int, vhost: str, tls: bool, name: str
) -> None:
    parts = [quote(part, safe='') for part in (user, password, vhost, name)]
    url = '{}://{}:{}@{}:{}/{}?name={}'.format(
        'amqps' if tls else 'amqp', *parts[:2], f'[{host}]' if ':' in host else host, port, *parts[2:]
    )
    parsed = AmqpUrl.parse(url)
    assert parsed == AmqpUrl(host, port, user, password, vhost, tls, name=name)
    assert AmqpUrl.parse(str(parsed)) == replace(parsed, password='***', name=None)


@given(st.text())
def test_any_text_parses_or_is_a_value_error(text: str) -> None:
    said = []
    for url in (text, 'amqp://' + text):
        try:
            repr(AmqpUrl.parse(url))
        except ValueError as error:
            said.append(str(error))
    assert all('AMQP URI' in text for text in said)
