"""rerankd, an HTTP reranking service: the package carries the program, which `python -m rerankd` runs too."""
