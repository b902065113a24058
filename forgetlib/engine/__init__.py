"""Speed: kernels, packed sequences, several processes. Numbers change within tolerances."""
