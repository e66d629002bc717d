"""Compression: fewer channels and blocks, sparse weights, and what they cost in quality."""

from ss.compression.sparse import Sparse, sparsity
from ss.compression.structured import Importance, Limits, chosen, macs, smaller

__all__ = ["Importance", "Limits", "Sparse", "chosen", "macs", "smaller", "sparsity"]
