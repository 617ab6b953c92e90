from tinynet import errors, kernels, ops
from tinynet.autograd import grad, no_grad, value_and_grad
from tinynet.backend import get_backend, register_backend, seed, use_backend
from tinynet.tensor import *
from tinynet import nn, losses, optim
