"""From a trained network to a program of native steps.

Read the packages in the order in which a network passes through them:

``ir``
    Sizes that are known only when an input arrives, as exact expressions (``h // 2``); the graph of values, nodes and
    constants, frozen: every change makes a new graph.
``operators``
    All that is known of an operator, by family: attributes, rules for shape, cost, receptive field and sizes along one
    axis, native steps, implementation on arrays.
``read``
    A PyTorch module or an ONNX model becomes a graph, with one rule for each of their operators.
``passes``
    Functions from graph to graph, verified before and after: folding, fusing, choosing layouts.
``store``
    A program as a frozen record, and the ``.cvx`` file that holds one.
``run``
    For given input sizes: which values share memory (concatenations and crops are views), where each lies in the arena,
    and the list of native steps. ``program`` is what users call. It knows neither torch nor onnx.

``compile``, ``load`` and ``backend`` are the public ways from a module, from a file, and from ``torch.compile``.
``specialised`` serves ONNX models whose sizes depend on the values of inputs; ``verification`` compares a program with
its PyTorch model.

Invariant: tensors are float32 and channels last between native steps, channels first everywhere else.
"""
