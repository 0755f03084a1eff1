"""Which GPU the tests find: a real one, the stand-in of ``tests/host_gpu``, or none, and why."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path

from host_gpu.host_cuda.build import NO_COMPILER

STAND_IN = Path(__file__).parents[1] / "host_gpu"


def on_host():
    """Whether CuPy is the stand-in: small sizes only. Nothing is imported."""
    found = find_spec("cupy")
    return found is not None and found.origin is not None and STAND_IN in Path(found.origin).parents


@cache
def reason_to_skip():
    """Why nothing can run here; None where it can."""
    if on_host():
        return NO_COMPILER
    try:
        import cupy

        count = cupy.cuda.runtime.getDeviceCount()
    except ImportError:
        return "CuPy is not installed"
    except Exception as error:  # noqa: BLE001 - whatever the driver, or its absence, says
        return f"no usable GPU: {str(error).splitlines()[0]}"
    return None if count else "no GPU"
