"""Tensors of several types end to end in one buffer."""

import torch

from sae_sweep.training.devices.flat import Flat, host_buffer

CPU = torch.device("cpu")


def test_tensors_are_where_they_are_said_to_be() -> None:
    """Each begins at a multiple of 256 bytes, and none touches another."""
    tensors = {
        "weights": torch.randn(70, 3),
        "silent": torch.arange(5),
        "nothing": torch.empty(0, 4),
        "coefficient": torch.tensor(2.5, dtype=torch.float64),
        "half": torch.randn(9).bfloat16(),
    }
    flat = Flat(tensors)
    assert flat.nbytes == 1024 + 256 + 0 + 256 + 256, "840, 40, 0, 8 and 18 bytes"
    buffer_N = host_buffer(flat.nbytes, CPU)
    buffer_N.fill_(255)
    views = flat.views(buffer_N)
    for name, tensor in tensors.items():
        views[name].copy_(tensor)
    elsewhere = flat.views(buffer_N.clone())
    for name, tensor in tensors.items():
        assert torch.equal(elsewhere[name], tensor)
        assert elsewhere[name].dtype == tensor.dtype
        assert elsewhere[name].storage_offset() * tensor.element_size() % 256 == 0
    assert buffer_N[840:1024].eq(255).all(), "what is between them is nobody's"
