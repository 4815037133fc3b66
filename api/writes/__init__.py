"""Writes: commands that invalidate, strict content, preconditions, and the endpoints of a resource that changes."""
