"""How fast an open by the broker is, beside the least that any broker could need: `python -m benchmarks.run`.

Nothing here is imported by the product, and nothing here asserts a time: the targets stand beside the
figures, and the reader judges on his own machine.
"""
