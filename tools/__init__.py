"""Programs for developers, run from the root as ``python -m tools.NAME``; some also give tests their samples."""
