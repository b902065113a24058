"""What notebooks/explore.ipynb shows: a task's questions, its controls and its picture."""
