"""A learned prompt at work: answers over HTTP and in files for other programs."""
