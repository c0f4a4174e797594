"""Serializers: how frames look to what is at the other end of a transport."""
