"""Who holds which part of a model, and which bytes of its file that is."""
