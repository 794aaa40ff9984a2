"""Comparing several trained policies: kept answers, a round robin under one judge, tables with intervals."""
