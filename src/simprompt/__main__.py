"""`python -m simprompt`."""

from simprompt.cli.main import main

main()
