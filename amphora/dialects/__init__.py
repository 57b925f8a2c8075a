"""How a request and a reply look on the wire: one dialect a file, all of them behind `Dialect`."""

from amphora.dialects.base import Dialect
from amphora.dialects.native import Native

__all__ = ('Dialect', 'Native')
