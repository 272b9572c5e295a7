"""`python -m simprompt`."""

from simprompt.cli import main

main()
