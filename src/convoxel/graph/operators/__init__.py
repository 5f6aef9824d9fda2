"""Operators: everything that is known of each, in one file for each family.

``operator`` says what a row holds. Shared by the families: ``shape`` (shape rules), ``step`` (native steps), ``host``
(implementations in NumPy), ``view`` and ``index_tables`` (where numbers lie, and how they are weighted), ``field`` and
``axis`` (contracts of the rules that ``inspect`` asks for). ``table`` collects the rows.
"""
