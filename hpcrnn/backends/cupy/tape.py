"""A layer's arrays on the GPU: what the forward pass leaves for the backward pass, and the weights."""

from __future__ import annotations

from dataclasses import dataclass

import cupy as cp
import numpy as np

from hpcrnn.backends.arena import Allocate, Shape
from hpcrnn.backends.cupy.arithmetic import Arithmetic
from hpcrnn.backends.cupy.device import DeviceArray
from hpcrnn.kernels.variants import Variant


@dataclass(frozen=True)
class GpuTape:
    """What the forward pass leaves for the backward pass; shapes as in ``persistent.cu``.

    Attributes
    ----------
    xw : array (T, B, G*H)
        ``x W``; the memory of ``gates``, unless the steps are to be run again.
    gates : array (T, B, G*H)
    h : array (T + 1, B, H)
    hidden : array (T + 1, B, N)
        ``h`` of all shards; the memory of ``h`` where there is one.
    c : float32 array (T + 1, B, H)
        LSTM only; elsewhere one element.
    q : array (T, B, H)
        GRU only.
    d : array (T, B, SLOTS*H)
    """

    xw: DeviceArray
    gates: DeviceArray
    h: DeviceArray
    hidden: DeviceArray
    c: DeviceArray
    q: DeviceArray
    d: DeviceArray

    @staticmethod
    def shapes(
        variant: Variant, T: int, B: int, H: int, *, backward: bool, again: bool = False, width: int | None = None
    ) -> tuple[dict[str, Shape], Shape]:
        """Shapes of the stored arrays, by name, and of ``c``.

        Parameters
        ----------
        variant : Variant
        T, B, H : int
        backward : bool
        again : bool
            The steps are to be run again.
        width : int, optional
            Hidden units of all shards.
        """
        nothing: Shape = (1, 1, 1)
        stored: dict[str, Shape] = {
            "gates": (T, B, variant.n_gates * H),
            "h": (T + 1, B, H),
            "q": (T, B, H) if variant.cell == "gru" else nothing,
            "d": (T, B, variant.n_slots * H) if backward else nothing,
        }
        if again:
            stored["xw"] = stored["gates"]
        if width not in (None, H):
            stored["hidden"] = (T + 1, B, width or 0)
        return stored, (T + 1, B, H) if variant.cell == "lstm" else nothing

    @classmethod
    def make(cls, shapes: tuple[dict[str, Shape], Shape], stored: Allocate, float32: Allocate) -> GpuTape:
        """Build a tape from allocators of its two types."""
        arrays = {name: stored(shape) for name, shape in shapes[0].items()}
        xw, c = arrays.get("xw", arrays["gates"]), float32(shapes[1])
        return cls(xw, arrays["gates"], arrays["h"], arrays.get("hidden", arrays["h"]), c, arrays["q"], arrays["d"])

    @classmethod
    def allocate(cls, variant: Variant, T: int, B: int, H: int, arithmetic: Arithmetic, *, backward: bool) -> GpuTape:
        """Allocate a tape of T steps by itself; all states start at zero."""
        shapes = cls.shapes(variant, T, B, H, backward=backward)
        return cls.make(shapes, lambda shape: arithmetic.zeros(*shape), lambda shape: cp.zeros(shape, np.float32))

    @property
    def steps(self) -> int:
        """T."""
        return len(self.gates)

    @property
    def sizes(self) -> tuple[int, int, int]:
        """T, B and H."""
        return self.steps, int(self.h.shape[1]), int(self.h.shape[2])

    def window(self, start: int, stop: int) -> GpuTape:
        """Views of the steps ``start:stop``; neighbouring windows share the state between them."""
        has_c, has_q, has_d = (len(a) > 1 or self.steps == 1 for a in (self.c, self.q, self.d))
        return GpuTape(
            self.xw[start:stop],
            self.gates[start:stop],
            self.h[start : stop + 1],
            self.hidden[start : stop + 1],
            self.c[start : stop + 1] if has_c else self.c,
            self.q[start:stop] if has_q else self.q,
            self.d[start:stop] if has_d else self.d,
        )


@dataclass
class GpuWeights:
    """A layer's weights as the kernels take them.

    Attributes
    ----------
    W (D, G*H), R (N, G*H), RT (G*H, N) : array
        Stored; RT is R transposed. N: hidden units of all shards.
    b (G*H,), bR (H,) : float32 array
        Their own arrays: the kernels read them in pairs, and a view may begin between two.
    """

    W: DeviceArray
    R: DeviceArray
    RT: DeviceArray
    b: DeviceArray
    bR: DeviceArray  # noqa: N815 - the field's name

    @classmethod
    def allocate(cls, variant: Variant, D: int, H: int, arithmetic: Arithmetic, width: int | None = None) -> GpuWeights:
        """Allocate, not set; ``width``: hidden units of all shards."""
        gates, width = variant.n_gates * H, H if width is None else width
        return cls(
            arithmetic.empty(D, gates),
            arithmetic.empty(width, gates),
            arithmetic.empty(gates, width),
            cp.zeros(gates, np.float32),
            cp.zeros(H, np.float32),
        )

    def load(self, parameters: dict[str, DeviceArray], arithmetic: Arithmetic) -> None:
        """Take over float32 parameters."""
        arithmetic.round(parameters["W"], self.W)
        arithmetic.round(parameters["R"], self.R)
        self.RT[...] = self.R.T
        self.b[...] = parameters["b"]
        if "bR" in parameters:
            self.bR[...] = parameters["bR"]
