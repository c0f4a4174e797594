"""Measurements of Antiphon beside other ways to do the same; see README.md."""
