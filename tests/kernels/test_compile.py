"""Every kernel family compiled by NVRTC for every architecture, from wheels alone: no spill, no stack frame."""

import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from hpcrnn.kernels.plan import CORRECTION_SPARE, DeviceLimits, make_plan
from hpcrnn.kernels.source import read_source
from hpcrnn.kernels.variants import PRECISIONS, Variant

ARCHITECTURES = ("sm_80", "sm_90", "sm_100", "sm_120")
EVERYTHING = bool(os.environ.get("HPCRNN_ALL_VARIANTS"))


def load_nvrtc():
    """CuPy's binding of the compiler; the wheels nvidia-cuda-nvrtc and cupy-cuda13x hold all of it."""
    try:
        from cupy_backends.cuda.libs import nvrtc

        nvrtc.getVersion()
    except (ImportError, RuntimeError, OSError) as error:
        return None, f"NVRTC cannot be loaded: {str(error).splitlines()[0]} (pip install cupy-cuda13x[ctk])"
    return nvrtc, ""


nvrtc, reason = load_nvrtc()
pytestmark = pytest.mark.skipif(nvrtc is None, reason=reason)


def compile_kernels(name, macros, architecture):
    """Registers, stack and spill bytes of each kernel."""
    program = nvrtc.createProgram(read_source(name), name, (), ())
    options = [f"-arch={architecture}", "-std=c++17", "-default-device", "--ptxas-options=-v"]
    try:
        nvrtc.compileProgram(program, [*options, *(f"-D{key}={value}" for key, value in macros.items())])
    except Exception as error:
        raise AssertionError(nvrtc.getProgramLog(program)) from error
    assert nvrtc.getCUBIN(program)
    pattern = r"(\d+) bytes stack frame, (\d+) bytes spill stores.*?Used (\d+) registers"
    return [tuple(map(int, found)) for found in re.findall(pattern, nvrtc.getProgramLog(program), re.DOTALL)]


def assert_on_chip(kernels):
    assert kernels
    for stack, spilled, registers in kernels:
        assert (stack, spilled) == (0, 0), kernels
        assert registers <= 255


# A data-centre chip of three generations, and a gamer's of the fourth: multiprocessors, shared bytes of a block.
LIMITS = {
    "sm_80": DeviceLimits(108, 166912, 65536, (8, 0)),
    "sm_90": DeviceLimits(132, 232448, 65536, (9, 0)),
    "sm_100": DeviceLimits(148, 232448, 65536, (10, 0)),
    "sm_120": DeviceLimits(170, 101376, 65536, (12, 0)),
}
VARIANTS = [
    Variant(cell, precision, direction)
    for direction in ("forward", "backward")
    for cell in ("lstm", "gru", "elman")
    for precision in PRECISIONS
]
# Unless all of them are asked for: each variant for one architecture, each architecture for each precision.
PERSISTENT = [
    (variant, architecture)
    for i, variant in enumerate(VARIANTS)
    for j, architecture in enumerate(ARCHITECTURES)
    if EVERYTHING or (i % 4 + i // 4) % 4 == j
]


def compile_persistent(variant, architecture, B=16, H=512):
    """The first planned tile that keeps all on chip, as the backend takes it."""
    for tile in make_plan(variant, B, H, LIMITS[architecture], "persistent").tiles:
        kernels = compile_kernels("persistent.cu", tile.macros(variant), architecture)
        if all(stack == spilled == 0 for stack, spilled, _ in kernels):
            return kernels
    return []


def compile_correction(variant, architecture, B=64, H=512):
    """The same of what runs rows again."""
    for tile in make_plan(variant, B, H, LIMITS[architecture], "persistent", CORRECTION_SPARE).tiles:
        macros = replace(tile, exchange="counter").macros(variant)
        kernels = compile_kernels("correction.cu", macros, architecture)
        if all(stack == spilled == 0 for stack, spilled, _ in kernels):
            return kernels
    return []


@pytest.mark.parametrize("compiled", [compile_persistent, compile_correction])
def test_the_persistent_kernels_stay_on_chip(compiled):
    with ThreadPoolExecutor(2) as pool:  # the compiler works outside Python's lock
        for (variant, architecture), kernels in zip(
            PERSISTENT, pool.map(lambda pair: compiled(*pair), PERSISTENT), strict=True
        ):
            assert kernels, f"{variant} spills with every planned tile on {architecture}"
            assert_on_chip(kernels)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_stepwise_kernels_stay_on_chip(architecture):
    for variant in VARIANTS if EVERYTHING else VARIANTS[ARCHITECTURES.index(architecture) :: 5]:
        assert_on_chip(compile_kernels("stepwise.cu", variant.macros(), architecture))
        if variant.cell == "gru":
            assert_on_chip(compile_kernels("stepwise_reset.cu", variant.macros(), architecture))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_layers_stay_on_chip(architecture):
    for i in range(len(PRECISIONS)) if EVERYTHING else [ARCHITECTURES.index(architecture)]:
        assert_on_chip(compile_kernels("layers.cu", {"PRECISION": i}, architecture))


def test_the_kernel_counts_its_shared_memory_as_the_plan_does():
    variant = Variant("lstm", "bfloat16", "forward")
    (tile, *_) = make_plan(variant, 16, 64, LIMITS["sm_90"]).tiles
    macros = tile.macros(variant)
    with pytest.raises(AssertionError, match="counts the shared memory"):
        compile_kernels("persistent.cu", macros | {"SHARED_BYTES": macros["SHARED_BYTES"] + 16}, "sm_90")
