"""The frozen two-tower model; nothing here knows about learning."""
