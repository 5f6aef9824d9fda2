"""Helpers of tests: random layers and networks, malformed files and models, checks of messages."""
