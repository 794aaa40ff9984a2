"""Sampling responses: one protocol, several engines."""
