"""Owns nothing: the import path of the sandbox for people who come from chuk-tool-processor."""
