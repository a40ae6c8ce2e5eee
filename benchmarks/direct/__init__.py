"""The limits: models called directly in a tight loop, in a process of their own that answers questions on a pipe."""
