"""From what was measured to the sections of a page: each function gives nothing where there are no data."""
