"""`python -m benchmarks`."""

import sys

from benchmarks.program import app

from simprompt.errors import SimpromptError

try:
    app()
except SimpromptError as error:
    sys.exit(f"benchmarks: {error}")
