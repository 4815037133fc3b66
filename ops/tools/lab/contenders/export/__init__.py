"""Ways to answer many rows of a table at once, as in the benchmark that this project started from."""
