"""The load generator: one process, plain HTTP/1.1, the same for every server that is measured."""
