"""A model's folder as Hugging Face's transformers saves it, as a source of models."""
