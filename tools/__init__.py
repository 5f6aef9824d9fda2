"""Programs for developers, run from the root as ``python -m tools.NAME``; tests import samples from some of them."""
