"""EquiformerV2 (Liao, Wood, Das and Smidt, arXiv:2306.12059) in torch alone, with upstream's parameter names and numbers."""
