"""Ways to answer all rows of a table at once, as the benchmark that this project started from has them."""
