"""Operators on arrays: what no native step computes, correctly and simply, in NumPy.

Every function takes its operands as arrays (None where absent) and its attributes by name, and returns one array or a
tuple of them. Tensors are channels first, of any number of axes and any type. The functions know no graphs; ``table``
makes one row of each, so a graph may mix them with native steps, be saved, and run without PyTorch.

``pointwise``, ``reduction``, ``movement``, ``product``, ``neighbourhood``, ``sampling``, ``quantisation``: read them
in any order.
"""
