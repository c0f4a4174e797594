"""End-of-turn analysis with a model that hears whether a sentence is finished."""
