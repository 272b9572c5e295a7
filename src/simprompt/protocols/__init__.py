"""How methods are measured."""
