"""Untrusted bytes in, arrays out."""
