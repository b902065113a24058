"""Causal language models: loading them, checking them, and one pass through them."""
