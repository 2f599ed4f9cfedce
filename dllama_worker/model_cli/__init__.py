"""The command ``dllama-model``: look at models of any format, fetch, convert and compare them."""
