"""Observers that write what they see to the log."""
