"""Encodings of torch tensors, dtypes and devices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch  # type: ignore[import-not-found, unused-ignore]

from gristmill.identity import tags
from gristmill.identity.arrays import write_array
from gristmill.identity.encoder import Encoder, NoIdentityError, Writer
from gristmill.identity.primitives import text
from gristmill.identity.standard import by_parts


def writers() -> Mapping[type, Writer]:
    """Return the writers of torch's types."""
    return {
        torch.Tensor: _write_tensor,
        torch.nn.Parameter: _write_tensor,
        torch.Size: by_parts("torch.Size", lambda v: (tuple(v),)),
        torch.dtype: by_parts("torch.dtype", lambda v: (_name(v),)),
        torch.device: by_parts("torch.device", lambda v: (v.type, v.index)),
        torch.Generator: by_parts("torch.Generator", lambda v: (v.device, v.get_state())),
    }


def _name(dtype: Any) -> str:
    names: list[str] = sorted(name for name, value in vars(torch).items() if value is dtype)
    return names[0]


def _write_tensor(encoder: Encoder, value: Any) -> None:
    """Append dtype, layout, shape, kind of device, whether it wants a gradient, and the content in C order."""
    if value.is_quantized or value.is_nested or value.is_meta:
        kind = "quantized" if value.is_quantized else "nested" if value.is_nested else "meta"
        raise NoIdentityError(value, f"a {kind} tensor has no content that can be read in order")
    encoder.parts.append(tags.NAMED + text(f"torch.{type(value).__name__}"))
    encoder.values((value.dtype, str(value.layout), value.device.type, value.requires_grad))
    plain = value.detach().resolve_conj().resolve_neg().to_dense().cpu().contiguous()
    # As raw bytes: numpy has no bfloat16 and no 8-bit floats.
    encoder.value(tuple(plain.shape))
    write_array(encoder, plain.reshape(-1).view(torch.uint8).numpy())
