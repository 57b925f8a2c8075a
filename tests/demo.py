"""What `make demo` runs: RabbitMQ, the documentation's server and its client, each a process of its own.

Shows each call beside what it returned, and ends with an error unless every one returned what it should.
"""

import ast
import os
import signal
import sys
from pathlib import Path

import gevent
from gevent import subprocess

from tests.rabbitmq import RabbitNode

EXAMPLES = Path(__file__).parent.parent / 'docs' / 'examples'
EXPECTED = ['5', '7', '25', '4.0']

CLIENT_LIMIT = 30
SHUTDOWN_LIMIT = 10


def printed_calls(source: str) -> list[str]:
    """The expressions that a script prints, in their order."""
    return [
        ast.unparse(node.value.args[0])
        for node in ast.parse(source).body
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and ast.unparse(node.value.func) == 'print'
    ]


def run_client(environ: dict[str, str]) -> list[str]:
    """Run the client, show each line it prints beside the call it comes from, and return the lines."""
    script = EXAMPLES / 'math_client.py'
    calls = iter(printed_calls(script.read_text()))
    results = []
    client = subprocess.Popen(
        [sys.executable, '-u', str(script)], env=environ, stdout=subprocess.PIPE, universal_newlines=True
    )
    try:
        with gevent.Timeout(CLIENT_LIMIT, SystemExit(f'demo: the client did not end within {CLIENT_LIMIT} s')):
            for line in client.stdout:
                results.append(line.strip())
                print(f'  {next(calls, "?")} -> {results[-1]}', flush=True)
            status = client.wait()
    finally:
        client.kill()
        client.wait()
    if status:
        raise SystemExit(f'demo: the client ended with {status}')
    return results


def stop_server(server: subprocess.Popen) -> None:
    if server.poll() is not None:
        raise SystemExit(f'demo: the server ended too early, with {server.returncode}')
    server.terminate()
    try:
        status = server.wait(timeout=SHUTDOWN_LIMIT)
    except subprocess.TimeoutExpired:
        raise SystemExit(f'demo: the server did not end within {SHUTDOWN_LIMIT} s of SIGTERM') from None
    if status not in (0, -signal.SIGTERM):
        raise SystemExit(f'demo: the server ended with {status}')


def main() -> None:
    print('Starting a private RabbitMQ, a server and a client ...', flush=True)
    with RabbitNode() as rabbit:
        environ = {**os.environ, 'AMPHORA_AMQP_URL': rabbit.url}
        server = subprocess.Popen([sys.executable, str(EXAMPLES / 'math_server.py')], env=environ)
        try:
            results = run_client(environ)
            stop_server(server)
        finally:
            server.kill()
            server.wait()
    print(' '.join(results))
    if results != EXPECTED:
        raise SystemExit(f'demo: expected {" ".join(EXPECTED)}')


if __name__ == '__main__':
    main()
