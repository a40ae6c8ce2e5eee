"""Fakes of the servers that the platform talks to, proven against recordings of the real ones."""
