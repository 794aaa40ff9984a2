"""Judges and methods in other libraries, and theirs here."""
