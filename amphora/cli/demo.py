"""``amphora demo``: broker, server and client in one process, and calls between them."""

from __future__ import annotations

from time import perf_counter
from typing import Any

import click
from gevent.pool import Pool
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from amphora.broker import Broker
from amphora.cli.common import Command
from amphora.client import AmqpRpcClient
from amphora.server import AmqpRpcServer

#: how many calls are made, and from how many greenlets at once
CALLS = 1000

# What is called: a function, its arguments. As in the documentation's first example.
_FIRST_CALLS = (('add', 2, 3), ('sub', 10, 3), ('multiply', 5, 5), ('div', 64, 16))


def _add_functions(server: AmqpRpcServer) -> None:
    @server.add_function
    def add(x: float, y: float) -> float:
        return x + y

    @server.add_function('sub')
    def substract(x: float, y: float) -> float:
        return x - y

    @server.add_function
    def multiply(x: float, y: float) -> float:
        return x * y

    @server.add_function('div')
    def divide(x: float, y: float) -> float:
        return x / y


def _call_many(console: Console, client: AmqpRpcClient) -> float:
    """Call a thousand times at once; the seconds that it took."""
    columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn())
    # Drawn by hand: rich would do it in a thread, which has no turn while greenlets work.
    with Progress(*columns, console=console, auto_refresh=False) as progress:
        task = progress.add_task('%d calls at once' % CALLS, total=CALLS)
        pool = Pool(CALLS)
        began = perf_counter()
        for number, result in enumerate(pool.imap_unordered(lambda x: client.call.add(x, 1), range(CALLS)), 1):
            assert isinstance(result, int)
            progress.advance(task)
            if number % (CALLS // 20) == 0:
                progress.refresh()
        return perf_counter() - began


@click.command(cls=Command, short_help='See calls return, without RabbitMQ.')
def command() -> None:
    """Start a broker, a server and a client in this process; show calls and their results, and then how fast a thousand
    calls at once are answered. Needs no RabbitMQ and leaves nothing behind.

    \b
    Example:
      amphora demo
    """
    console = Console(highlight=False, markup=False, emoji=False)
    with Broker() as broker:
        server = AmqpRpcServer('simplemath', amqp_url=broker.url)
        _add_functions(server)
        server.serve()
        client = AmqpRpcClient('simplemath', amqp_url=broker.url)
        try:
            results: list[Any] = []
            for name, x, y in _FIRST_CALLS:
                results.append(client.call(function_name=name)(x, y))
                console.print('client.call.%s(%d, %d) -> %r' % (name, x, y, results[-1]), soft_wrap=True)
            console.print(*results)
            seconds = _call_many(console, client)
            console.print('%d calls a second' % (CALLS / seconds))
        finally:
            client.stop()
            server.stop()
