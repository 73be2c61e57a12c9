"""What a marked tensor answers itself: questions about shape, dtype or device, which read no values."""

from typing import Any

QUESTIONS = frozenset({
    "size", "dim", "ndimension", "numel", "nelement", "stride", "is_contiguous", "element_size", "get_device",
    "is_floating_point", "is_complex", "is_signed", "__len__", "__hash__", "storage_offset", "is_inference",
    "is_conj", "is_neg", "is_same_size", "shape", "dtype", "device", "ndim", "layout",
    "is_cuda", "is_cpu", "is_mps", "is_meta", "is_sparse", "is_quantized", "is_nested", "is_mkldnn", "is_xpu",
    "requires_grad", "is_leaf", "grad_fn", "grad", "names", "itemsize", "nbytes", "output_nr", "retains_grad",
    "_version", "_backward_hooks", "_base", "is_sparse_csr", "is_ipu", "is_vulkan", "is_xla", "is_maia",
    "is_mtia", "is_hpu",
})  # fmt: skip


def is_question(func: Any) -> bool:
    """Say whether a torch function is such a question.

    Args:
        func: The function, or the `__get__` of a property.

    Returns:
        True if it is.
    """
    name = getattr(func, "__name__", "")
    if name == "__get__":
        name = getattr(func.__self__, "__name__", "")
    return name in QUESTIONS
