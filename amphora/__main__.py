"""``python -m amphora``: the command line."""

from amphora.cli import main

main()
