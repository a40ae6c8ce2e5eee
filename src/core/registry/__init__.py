"""The parts of the registry client; `src.core.mlflow_registry` is its face."""
