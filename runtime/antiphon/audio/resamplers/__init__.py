"""Sample rate conversion, for streams and for whole recordings."""
