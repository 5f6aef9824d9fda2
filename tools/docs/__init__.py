"""The documentation: pages whose code runs, and pages that are made from docstrings, commands and measurements.

``python -m tools.docs`` writes ``build/docs-source`` and ``build/mkdocs.yml``, of which MkDocs makes the site
(``make docs``). Read in this order: ``page`` (a page as text and blocks of code), ``session`` (runs the blocks of a
page), ``written`` (a page with what its blocks printed and drew), ``docstring``, ``reference``, ``command_page`` and
``benchmark_page`` (pages made of other sources), ``site`` (all of them).
"""
