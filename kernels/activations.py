"""The activations that a layer's product applies itself; all others are operations of their own."""

ACTIVATIONS = (None, "relu", "tanh", "sigmoid")  # of ``linear`` and of every epilogue; compiled kernels have the index
