"""A peer."""
