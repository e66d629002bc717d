"""Helpers that belong to no other part."""

from ss.utils.predecessor import load_predecessor_checkpoint
