"""The coverage matrix: for each architecture a tiny random model, served over HTTP beside a direct call."""
