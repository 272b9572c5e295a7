"""Make the text tower of the CLIP for photographs (see README.md here)."""
