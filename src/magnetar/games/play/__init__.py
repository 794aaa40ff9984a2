"""A method at play on matrix games: the runner, its state, what it records, what feedback the method sees."""
