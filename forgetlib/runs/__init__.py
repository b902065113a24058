"""Runs: what decides one, how it is done, where it is stored, and whether it comes out again."""
