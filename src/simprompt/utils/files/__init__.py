"""Files that are whole or not there: written, downloaded, unpacked, or behind a URL."""
