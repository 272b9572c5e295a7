"""Rebuild the embedded icon CLIP from openly licensed icon packs (see README.md here)."""
