"""What a CUDA graph does, on a CPU: a function's operations are recorded, and can be run again on the same tensors.

As there, nothing but these operations is done again: what the function knew of numbers on the host is fixed.
"""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten


class _Recorder(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.operations = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        self.operations.append((func, args, kwargs, result))
        return result


def capture(function):
    """Records a function; other than a graph's, its first run counts. Calling what is returned runs it once more."""
    recorder = _Recorder()
    with recorder:
        function()
    runs = 0

    def replay():
        nonlocal runs
        runs += 1
        if runs > 1:
            for operation in recorder.operations:
                _again(*operation)

    return replay


def _again(func, args, kwargs, result):
    """An operation with new values in the tensors that it was given and gave."""
    outputs, places = _tensors(result), {_place(one) for one in _tensors((args, kwargs))}
    if not func._schema.is_mutable and all(_place(one) in places for one in outputs):
        return  # views, which are there
    for old, new in zip(outputs, _tensors(func(*args, **kwargs)), strict=True):
        if _place(old) != _place(new):
            old.copy_(new)


def _tensors(values):
    return [one for one in tree_flatten(values)[0] if isinstance(one, torch.Tensor) and not one.is_mkldnn]


def _place(tensor):
    return tensor.untyped_storage().data_ptr()
