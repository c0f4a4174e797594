"""Transports over network connections that somebody else has opened."""
