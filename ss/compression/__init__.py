"""Compression: fewer channels and blocks, sparse and rounded weights, and graphs of what is left."""
