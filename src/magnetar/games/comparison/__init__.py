"""Many methods on many games: what was chosen, and what each cell of the table gave."""
