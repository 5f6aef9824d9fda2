"""From a trained network to a program of native steps.

Read the files in the order in which a network passes through them:

``size``
    Sizes that are known only when an input arrives, as small exact expressions (``h // 2``).
``ir``
    The graph: values, nodes, constants. Frozen; every change makes a new graph.
``opset``
    What each operator means, one table row each: attributes, shape rule, cost rule, window, lowering.
    ``taps`` holds the index tables by which poolings, resizes and paddings become one native step.
``from_torch``
    A PyTorch module becomes a graph; ``layers`` and ``tensors`` in it have one rule for each PyTorch operator.
``passes``
    Functions from graph to graph, verified before and after: folding, fusing, choosing layouts.
``place``, ``memory``, ``plan``
    For given input sizes: which values share memory (concatenations and crops are views), where each lies
    in the arena, and the list of native steps.
``program``
    What the user calls. It knows neither torch nor onnx.
``compile``
    The public function that goes all the way.

Invariant: tensors are float32 and channels last between native steps, channels first everywhere else.
"""
