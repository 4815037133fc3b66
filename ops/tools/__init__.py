"""Tools of developers, which no image has: servers, lab and load."""
