"""Programs at work: input checks, plans for input sizes, memory, execution, and what they report."""
