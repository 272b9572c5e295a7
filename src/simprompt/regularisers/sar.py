"""SAR, the paper's regulariser, under the name that `--regulariser` takes; see `simprompt.sar`."""

from simprompt.sar import Regulariser as REGULARISER  # noqa: N814

__all__ = ["REGULARISER"]
