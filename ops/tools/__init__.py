"""Tools for developers, which no image has: private servers, the laboratory and load generators."""
