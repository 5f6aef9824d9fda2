"""The intermediate representation: ``graph`` (values, nodes, constants), ``size`` (open sizes as exact expressions),
``polynomial`` (their algebra), ``pytree`` (nested results) and ``printer`` (a graph as text)."""
