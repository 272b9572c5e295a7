"""Exits with 0 where the torch that is installed asks for CUDA's libraries, with 1 where not."""

import sys
from importlib.metadata import requires

sys.exit(not any(r.startswith(("nvidia-", "cuda-", "triton")) for r in requires("torch") or []))
