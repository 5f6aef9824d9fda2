"""The intermediate representation: ``graph`` (values, nodes, constants), ``size`` (open sizes as exact expressions),
``polynomial`` (their algebra) and ``pytree`` (nested results)."""
