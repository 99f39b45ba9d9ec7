"""Owns the data models behind a tool; import them from `toolchord`, or from here when coming from chuk."""
