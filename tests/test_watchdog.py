"""The watchdog's own thread: it is in nobody's way."""

import sys

from gevent import subprocess

# A handler that sends what it is given over a socket waits for the hub like this, and holds its lock meanwhile.
PROGRAM = """
from gevent import monkey
monkey.patch_all()

import logging, time
import gevent
from amphora.watchdog import watchdog

class Sending(logging.Handler):
    def emit(self, record):
        gevent.sleep(0.2)

logging.getLogger().addHandler(Sending())
watchdog.watch()
gevent.sleep(0.6)
other = gevent.spawn(logging.getLogger('other').warning, 'text')
gevent.sleep(0.01)
end = time.monotonic() + 1.6
while time.monotonic() < end:
    pass
watchdog.unwatch()
other.join()
print('went on')
"""


def test_its_line_does_not_stand_in_the_way_of_whom_it_is_about() -> None:
    assert subprocess.check_output([sys.executable, '-c', PROGRAM], timeout=30) == b'went on\n'


SLOW_HANDLER = """
from gevent import monkey
monkey.patch_all()

import logging, time
import gevent
from amphora.watchdog import watchdog

lines = []

class Sending(logging.Handler):
    def emit(self, record):
        lines.append(record.getMessage())
        gevent.sleep(0.1)

logging.getLogger().addHandler(Sending())
watchdog.watch()
gevent.sleep(0.6)
end = time.monotonic() + 1.8
while time.monotonic() < end:
    pass
gevent.sleep(2.5)
watchdog.unwatch()
print(len(lines))
"""


def test_it_says_once_that_the_hub_is_free_again_whatever_the_handlers_do() -> None:
    # Held for a second; and free again.
    assert subprocess.check_output([sys.executable, '-c', SLOW_HANDLER], timeout=30) == b'2\n'


DESTROYED = """
import logging, threading, time
import gevent
from amphora.watchdog import watchdog

logging.basicConfig(format='%(message)s')

def destroy():
    watchdog.watch()
    gevent.get_hub().destroy(destroy_loop=True)
    time.sleep(1)

watchdog.watch()
thread = threading.Thread(target=destroy)
thread.start()
thread.join()
gevent.sleep(0.6)
time.sleep(1.8)
"""


def test_a_thread_that_destroys_its_hub_does_not_end_it() -> None:
    ran = subprocess.run([sys.executable, '-c', DESTROYED], stderr=subprocess.PIPE, text=True, timeout=30)
    assert '<module> (line 18 of <string>) has held the hub for ' in ran.stderr
