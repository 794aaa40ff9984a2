"""Prompts in TRL's column formats, from a file, a folder, the Hub or the set embedded for demonstrations."""
