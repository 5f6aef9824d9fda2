"""Operators: everything that is known of each, by family."""
