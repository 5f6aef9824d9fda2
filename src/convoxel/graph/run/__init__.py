"""Runs: a graph becomes native steps for given input sizes, and a program that calls them."""
