"""Features: MIND-SSC (local detail) and reduced foundation-model embeddings (global context)."""
