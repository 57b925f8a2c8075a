"""A WSGI application that calls functions of `math_server.py`: `gunicorn -k gevent web:application`."""

from urllib.parse import parse_qs

from amphora import AmqpRpcClient, NoResult

# gunicorn imports this module in each worker, after the fork: every worker has a client of its own.
client = AmqpRpcClient('simplemath', timeout=5)


def application(environ, start_response):
    query = parse_qs(environ['QUERY_STRING'])
    try:
        answer = client.call.add(int(query['x'][0]), int(query['y'][0]))
    except (KeyError, ValueError):
        start_response('400 Bad Request', [('Content-Type', 'text/plain')])
        return [b'give x and y, as in /?x=2&y=3\n']
    except NoResult:
        start_response('504 Gateway Timeout', [('Content-Type', 'text/plain')])
        return [b'no answer within 5 seconds\n']
    start_response('200 OK', [('Content-Type', 'text/plain')])
    return [f'{answer}\n'.encode()]
