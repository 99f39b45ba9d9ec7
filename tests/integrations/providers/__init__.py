"""Strict stand-ins for two providers' servers, on loopback, for their real SDKs."""
