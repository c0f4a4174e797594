"""Models that several sessions share: what one is, and how a processor uses it.

A processor asks for a model by a `ModelSpec` (`provider.connect_model`) and gets a `ModelClient`. Where
the model runs is for the provider of the process to say: in this process, in a thread of its own, unless
something else was installed, such as the model actors of a cluster. The model class, its batches and its
results are the same.
"""
