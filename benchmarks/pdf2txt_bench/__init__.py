"""The parts of ``benchmarks/pdf2txt.py``, a module each: ``run(bench)`` returns the part's ``Part``."""
