"""A small shop that only the tests install: what the runtime's tests are about, whatever resources there are."""
