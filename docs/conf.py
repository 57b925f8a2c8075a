"""How Sphinx builds this documentation. It needs no network: nothing refers to the inventories of other projects."""

from importlib.metadata import version as installed_version

project = 'amphora'
author = 'amphora maintainers'
copyright = '2026, amphora maintainers'
release = installed_version('amphora')
version = '.'.join(release.split('.')[:2])

extensions = ['sphinx.ext.autodoc', 'myst_parser']
exclude_patterns = ['_build', 'examples']
source_suffix = {'.rst': 'restructuredtext'}

autodoc_member_order = 'bysource'
autodoc_typehints = 'description'
autodoc_typehints_description_target = 'documented'

# A reference to a name of ours that does not exist is an error; names of other projects have nothing here to point to.
nitpick_ignore_regex = [(r'py:.*', r'(?!amphora\b).*')]

html_theme = 'furo'
html_title = f'amphora {release}'
