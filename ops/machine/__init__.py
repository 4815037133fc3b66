"""The machine that the service runs on: CPUs, memory, files, addresses."""
