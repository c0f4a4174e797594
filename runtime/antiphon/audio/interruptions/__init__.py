"""Strategies that decide whether the user may interrupt a speaking bot."""
