"""The servers that are measured: ours with a no-op plugin, and the baselines."""
