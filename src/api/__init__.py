"""HTTP: the only package, with `src.main`, that knows FastAPI."""
