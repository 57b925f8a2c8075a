"""What becomes, in a forked child, of what its parent made: it is abandoned there, and the parent goes on with it."""

from __future__ import annotations

import os
import sys
import weakref
from collections.abc import Callable
from typing import TypeVar

import gevent

T = TypeVar('T')


def abandoned_at_fork(abandon: Callable[[T], object]) -> weakref.WeakSet[T]:
    """A set whose members are abandoned in each child that this process forks; it keeps none of them alive.

    :param abandon: called in the child with each member, which is a copy of the parent's; must neither block nor send
        anything.
    """
    members: weakref.WeakSet[T] = weakref.WeakSet()

    def abandon_all() -> None:
        if members and 'gevent.libuv.loop' in sys.modules:
            # First: libuv would have the kernel's list of sockets, which is still the parent's, too, forget theirs.
            gevent.reinit()
        for member in list(members):
            abandon(member)

    os.register_at_fork(after_in_child=abandon_all)
    return members
