"""Charts of pages as inline SVG, each with a table that says the same; colours come from the page's style sheet."""
