"""What a server has answered lately, so that a repeat of a request is answered and not run again.

A client sends an unconfirmed request again after a reconnect, under the same id, and the broker delivers an unacked one
again. Knows keys and answers; not what they look like.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

Key = tuple[str, str]

#: how many requests are remembered
COUNT = 10_000
#: how many bytes of answers are remembered
BYTES = 67_108_864


class Recent:
    """The newest answers by request, within two limits.

    :param count: at most so many answers.
    :param size: at most so many bytes of them, where `remember` is told how large each is. An answer beyond it is not
        kept: a repeat of its request runs again.
    """

    def __init__(self, count: int = COUNT, size: int = BYTES) -> None:
        self._count = count
        self._room = size
        self._answers: OrderedDict[Key, tuple[Any, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._answers)

    def remember(self, key: Key, answer: Any, size: int) -> None:
        """Keep an answer; the oldest go when there are too many."""
        _, replaced = self._answers.pop(key, (None, 0))
        self._answers[key] = (answer, size)
        self._room += replaced - size
        while self._answers and (self._room < 0 or len(self._answers) > self._count):
            _, (_, gone) = self._answers.popitem(last=False)
            self._room += gone

    def get(self, key: Key) -> Any:
        """The answer to a request; None when it is not remembered."""
        kept = self._answers.get(key)
        return None if kept is None else kept[0]
