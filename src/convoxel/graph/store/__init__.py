"""Files of compiled programs, written and read."""
