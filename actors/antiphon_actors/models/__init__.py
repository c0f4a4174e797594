"""Models in actors of their own, shared by the sessions of a cluster.

A process that uses a model asks its node's agent where that runs (`provider`), and then talks to the model's
actors itself, over its links (`remote`, `wire`): a stream of requests there, a stream of answers back. An
actor (`actor`, `host`) runs one model. The agent (`agent_models`) starts and ends them, as `pools` decides.
"""
