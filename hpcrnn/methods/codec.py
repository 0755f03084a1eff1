"""Compression of the states that cross ranks.

``float16`` and ``bfloat16`` round to nearest even; ``int8`` keeps 127 steps each side of zero, of a scale of its own
for every state and sample.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hpcrnn.compression.rounding import LARGEST_FLOAT16, from_bfloat16, from_int8, to_bfloat16, to_int8
from hpcrnn.errors import NumericsError
from hpcrnn.spec import HaloCodec

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Codec:
    """A way to write states (n, B, H) as bytes.

    Attributes
    ----------
    name : {"none", "float16", "bfloat16", "int8"}
    encode : callable
        From states to a contiguous array, always of the same shape for the same shape of states.
    decode : callable
        From that and an array of the states' shape and type to fill.
    """

    name: HaloCodec
    encode: Callable[[Array], Array]
    decode: Callable[[Array, Array], None]


def make_codec(name: HaloCodec) -> Codec:
    """Return a codec by its name."""
    return Codec(name, *_CODECS[name])


def _copy(states: Array) -> Array:
    return np.ascontiguousarray(states)


def _uncopy(wire: Array, out: Array) -> None:
    out[...] = wire


def _to_float16(states: Array) -> Array:
    largest = float(np.abs(states).max(initial=0.0))
    if largest > LARGEST_FLOAT16:
        raise NumericsError(
            f"recurrence.halo_codec = float16: a state of {largest:.4g} is beyond its range; allowed is at most "
            f"{LARGEST_FLOAT16:.0f}, or the codec bfloat16 or int8"
        )
    return states.astype(np.float16)


def _to_int8(states: Array) -> Array:
    """Levels (n, B, H) with the four bytes of their scale behind each row: (n, B, H + 4)."""
    levels, scale = to_int8(states)
    return np.concatenate([levels, scale.view(np.int8)], axis=2)


def _from_int8(wire: Array, out: Array) -> None:
    H = out.shape[-1]
    from_int8(wire[..., :H], np.ascontiguousarray(wire[..., H:]).view(np.float32), out)


_CODECS: dict[HaloCodec, tuple[Callable[[Array], Array], Callable[[Array, Array], None]]] = {
    "none": (_copy, _uncopy),
    "float16": (_to_float16, _uncopy),
    "bfloat16": (to_bfloat16, from_bfloat16),
    "int8": (_to_int8, _from_int8),
}
