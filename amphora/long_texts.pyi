from msgspec import Raw

LONG: int
HOLE: Raw
MARK: str

def fill(body: bytes, text: str) -> bytes | None: ...
def take_out(body: bytes, depth: int) -> tuple[bytes, str] | None: ...
