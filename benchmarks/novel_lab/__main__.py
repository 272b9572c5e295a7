"""`python -m benchmarks.novel_lab`."""

import sys

from benchmarks.novel_lab.program import app

from simprompt.errors import SimpromptError

try:
    app()
except SimpromptError as error:
    sys.exit(f"novel_lab: {error}")
