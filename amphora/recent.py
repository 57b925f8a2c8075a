"""What a server has answered lately, so that a repeat of a request is answered and not run again.

A client sends an unconfirmed request again after a reconnect, under the same id, and the broker delivers an unacked one
again. Knows keys and answers; of those no more than how large they are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sized
from typing import Any

Key = tuple[str, str]

#: how many requests are remembered
COUNT = 10_000
#: how many bytes of answers are remembered
BYTES = 67_108_864


class Recent:
    """The newest answers by request, within two limits.

    :param count: at most so many answers.
    :param size: at most so much by their lengths, in bytes. An answer beyond it is not kept: a repeat of its request
        runs again.
    """

    def __init__(self, count: int = COUNT, size: int = BYTES) -> None:
        self._count = count
        self._room = size
        # Nothing is kept beside the two: what is remembered has left the processor's caches when its turn to go comes.
        self._answers: dict[Key, Sized] = {}
        self._keys: deque[Key] = deque()

    def __len__(self) -> int:
        return len(self._answers)

    def remember(self, key: Key, answer: Sized) -> None:
        """Keep an answer; the oldest go when there are too many."""
        replaced = self._answers.get(key)
        if replaced is None:
            self._keys.append(key)
        else:
            self._room += len(replaced)
        self._answers[key] = answer
        self._room -= len(answer)
        while self._keys and (self._room < 0 or len(self._keys) > self._count):
            gone = self._answers.pop(self._keys.popleft())
            self._room += len(gone)

    def get(self, key: Key) -> Any:
        """The answer to a request; None when it is not remembered."""
        return self._answers.get(key)
