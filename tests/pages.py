"""The pages of the documentation, in reStructuredText and in Markdown, and the Python in them."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
DOCS = ROOT / 'docs'

_BLOCKS = {
    '.rst': re.compile(r'^\.\. code-block:: python\n\n((?:   .*\n|\n)+)', re.MULTILINE),
    '.md': re.compile(r'^```python\n(.*?)^```$', re.MULTILINE | re.DOTALL),
}


def pages_of(directory: Path) -> list[Path]:
    return sorted(page for page in directory.rglob('*') if page.suffix in _BLOCKS and '_build' not in page.parts)


def blocks_of(page: Path) -> list[str]:
    """The Python blocks of a page, which are one program in pieces."""
    blocks = _BLOCKS[page.suffix].findall(page.read_text())
    return [re.sub('^   ', '', block, flags=re.MULTILINE) for block in blocks] if page.suffix == '.rst' else blocks


def stated_prints(source: str) -> list[str]:
    """The comments behind the `print` calls of a program, in their order: what it says that it prints."""
    lines = source.splitlines()
    prints = [
        node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call) and ast.unparse(node.func) == 'print'
    ]
    behind = [
        lines[node.end_lineno - 1][node.end_col_offset :] for node in sorted(prints, key=lambda node: node.lineno)
    ]
    assert all(comment.startswith('  # ') for comment in behind), 'a print has no comment that says what it prints'
    return [comment[len('  # ') :] for comment in behind]
