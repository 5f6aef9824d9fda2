"""From a graph to the models of other engines, which mirrors ``graph.read``."""
