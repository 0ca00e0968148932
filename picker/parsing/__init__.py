"""Request bodies: which API a path names, and what the picker needs to know of the body."""
