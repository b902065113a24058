"""What is done to weights: methods, the labels that they train towards, and the training loop."""
