"""The benchmark laboratory, which measures the service beside its peers, on the same rows, in the same minutes."""
