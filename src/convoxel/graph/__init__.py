"""From a trained network to a program of native steps.

Read the files in the order in which a network passes through them:

``size``
    Sizes that are known only when an input arrives, as small exact expressions (``h // 2``); ``polynomial`` is
    their arithmetic.
``ir``
    The graph: values, nodes, constants. Frozen; every change makes a new graph.
``opset``
    What each operator means, one table row each (``operator``): attributes, shape rule, cost rule, window,
    lowering. ``arrays`` are the operators that NumPy computes, because no native step does. ``taps`` holds the
    index tables by which poolings, resizes and paddings become one native step; ``view`` says where tensors lie.
``from_torch``
    A PyTorch module becomes a graph; ``layers``, ``numeric`` and ``tensors`` in it have one rule for each PyTorch
    operator.
``from_onnx``
    An ONNX model becomes a graph; ``spatial``, ``numeric`` and ``tensors`` in it have one rule for each operator.
``passes``
    Functions from graph to graph, verified before and after: folding, fusing, choosing layouts.
``place``, ``memory``, ``plan``
    For given input sizes: which values share memory (concatenations and crops are views), where each lies
    in the arena, and the list of native steps.
``program``
    What the user calls. It knows neither torch nor onnx. ``explanation`` is what it says about its steps, ``advice``
    which sizes it would take instead of those that it refuses.
``archive``
    A program in a file, and back.
``compile``, ``load``, ``backend``
    The public ways from a module, from a file, and from ``torch.compile``. ``specialised`` serves ONNX models whose
    sizes depend on the values of inputs.

Invariant: tensors are float32 and channels last between native steps, channels first everywhere else.
"""
