"""Programs as records, and in files."""
