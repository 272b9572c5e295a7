"""CLIP's weights and configurations as others name them, one file a layout."""
