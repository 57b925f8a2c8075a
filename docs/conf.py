"""How Sphinx builds this documentation. It needs no network: nothing refers to the inventories of other projects."""

import re
from importlib.metadata import version as installed_version

project = 'amphora'
author = 'amphora maintainers'
copyright = '2026, amphora maintainers'
release = installed_version('amphora')
version = '.'.join(release.split('.')[:2])

extensions = ['sphinx.ext.autodoc', 'myst_parser']
exclude_patterns = ['_build', 'examples']
source_suffix = {'.rst': 'restructuredtext', '.md': 'markdown'}

autodoc_member_order = 'bysource'
autodoc_typehints = 'description'
autodoc_typehints_description_target = 'documented'

# A reference to a name of ours that does not exist is an error; names of other projects have nothing here to point to.
nitpick_ignore_regex = [
    (r'py:.*', r'(?!amphora\b).*'),
    (r'py:class', r'amphora\.(functions|server)\.F'),  # type variables
]

# Names in the docstrings are in single backticks, and become links.
default_role = 'py:obj'

html_theme = 'furo'
html_title = f'amphora {release}'


def close_plurals(app, what, name, obj, options, lines):
    """Let "`Class`es" in a docstring be a link and an ending, which reStructuredText wants to have kept apart."""
    lines[:] = [re.sub(r'(`[\w.]+`)(?=e?s\b)', r'\1\\ ', line) for line in lines]


def setup(app):
    app.connect('autodoc-process-docstring', close_plurals)
