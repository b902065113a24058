"""What is asked of a checkpoint: scores of both choices, and probes of its hidden states."""
