"""The benchmark laboratory: measures the service beside its peers, on the same rows, in the same minutes."""
