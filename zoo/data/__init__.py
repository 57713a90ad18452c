"""Frames from files, published sets and the embedded one, split and batched."""
