"""The Ray side of Antiphon: clusters, actors, channels, supervision.

It imports `antiphon`; `antiphon` never imports it.
"""
