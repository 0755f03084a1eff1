"""From names to engines and products; what is missing is said before anything is built."""

import importlib.util
import sys
from types import SimpleNamespace

import pytest
from engine_samples import make_problem

from hpcrnn.backends import registry
from hpcrnn.backends.base import Extent
from hpcrnn.backends.numpy import mkl
from hpcrnn.backends.numpy.engine import NumpyEngine
from hpcrnn.backends.numpy.mkl import MklProducts, load_mkl
from hpcrnn.backends.registry import check_backends, make_engine, product_library
from hpcrnn.cells.products import NumpyProducts
from hpcrnn.errors import LaunchError, MissingPackageError, SpecError
from hpcrnn.spec import build_spec


@pytest.fixture
def no_mkl(monkeypatch):
    monkeypatch.setattr(registry, "load_mkl", lambda: None)


@pytest.fixture
def torch_is(monkeypatch):
    """Say whether torch is installed, whatever the truth."""

    def pretend(installed):
        truth = importlib.util.find_spec
        answer = object() if installed else None
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name, *rest: answer if name == "torch" else truth(name, *rest)
        )

    return pretend


def make_spec(**overrides):
    return build_spec({}, overrides)


def test_numpy_alone_needs_nothing(no_mkl, torch_is):
    torch_is(False)
    check_backends(make_spec())
    check_backends(make_spec(gemm="numpy", cell="gru", reset="before"))


def test_mkl_asked_for_and_missing_is_an_error_that_says_how_to_get_it(no_mkl):
    with pytest.raises(MissingPackageError) as raised:
        check_backends(make_spec(gemm="mkl"))
    assert str(raised.value) == "machine.gemm = mkl: MKL is not installed: pip install mkl"


@pytest.mark.parametrize("backend", ["torch", "numpy,torch"])
def test_torch_asked_for_and_missing_is_an_error_that_says_how_to_get_it(torch_is, backend):
    torch_is(False)
    with pytest.raises(MissingPackageError) as raised:
        check_backends(make_spec(backend=backend))
    assert str(raised.value) == (
        "machine.backend = torch: PyTorch is not installed: pip install torch "
        "(it is a peer to measure against; everything else works without it)"
    )


def test_torch_has_no_gru_that_resets_before_the_product(torch_is):
    torch_is(True)
    with pytest.raises(SpecError) as raised:
        check_backends(make_spec(backend="torch", cell="gru", reset="before"))
    assert (
        str(raised.value) == "model.reset = 'before': allowed is after, with backend torch: torch.nn.GRU has no other"
    )


@pytest.mark.parametrize("cell", ["mingru", "minlstm"])
@pytest.mark.parametrize("backend", ["torch", "cupy"])
def test_linear_cells_are_refused_where_only_numpy_has_them(torch_is, cupy_is, backend, cell):
    (torch_is if backend == "torch" else cupy_is)(True)
    check_backends(make_spec(cell=cell))
    with pytest.raises(SpecError) as raised:
        check_backends(make_spec(backend=f"numpy,{backend}", cell=cell))
    assert str(raised.value) == f"model.cell = '{cell}': allowed is elman, lstm or gru, with backend {backend}"


@pytest.mark.parametrize("overrides", [{"cell": "gru"}, {"cell": "lstm", "reset": "before"}], ids=str)
def test_torch_is_accepted_where_the_reset_fits_or_does_not_matter(torch_is, overrides):
    torch_is(True)
    check_backends(make_spec(backend="numpy,torch", **overrides))


def test_products_without_mkl_are_numpys(no_mkl):
    assert isinstance(product_library("auto", 1), NumpyProducts)


def test_products_are_numpys_where_they_are_asked_for():
    assert isinstance(product_library("numpy", 1), NumpyProducts)


@pytest.mark.parametrize("gemm", ["auto", "mkl"])
def test_products_with_mkl_are_mkls(gemm):
    if load_mkl() is None:
        pytest.skip("MKL is not installed: pip install mkl")
    assert isinstance(product_library(gemm, 1), MklProducts)


def test_mkl_is_loaded_once():
    assert load_mkl() is load_mkl()


def test_a_library_that_is_not_mkl_is_passed_over(monkeypatch, tmp_path):
    damaged = tmp_path / "libmkl_rt.so.2"
    damaged.write_bytes(b"not a library")
    monkeypatch.setattr(mkl, "_candidates", lambda: [str(tmp_path / "none.so"), str(damaged), "libc.so.6"])
    assert load_mkl.__wrapped__() is None


def test_the_root_of_an_mkl_installation_is_searched(monkeypatch, tmp_path):
    library = tmp_path / "lib" / "libmkl_rt.so.3"
    library.parent.mkdir()
    library.touch()
    monkeypatch.setenv("MKLROOT", str(tmp_path))
    assert str(library) in mkl._candidates()


def make(name, **overrides):
    problem = make_problem("gru-after", **overrides)
    extent = Extent(7, (slice(0, 5),), (slice(0, 7),), 1 / 35, "gradient")
    return make_engine(name, problem.network, extent, problem.spec)


def test_an_engine_says_what_multiplies():
    engine = make("numpy", gemm="numpy")
    assert isinstance(engine, NumpyEngine)
    assert engine.kernel == NumpyProducts().name


@pytest.mark.peer
def test_the_peer_says_which_module_it_is():
    torch = pytest.importorskip("torch")
    assert make("torch").kernel == f"torch {torch.__version__} nn.GRU"


@pytest.mark.peer
def test_the_peer_uses_the_threads_it_is_given():
    torch = pytest.importorskip("torch")
    for threads in (2, 1):
        make("torch", threads=threads)
        assert torch.get_num_threads() == threads


@pytest.fixture
def cupy_is(monkeypatch):
    """Say whether CuPy is installed, whatever the truth."""

    def pretend(installed):
        truth = importlib.util.find_spec
        answer = object() if installed else None
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name, *rest: answer if name == "cupy" else truth(name, *rest)
        )

    return pretend


def test_cupy_asked_for_and_missing_is_an_error_that_says_how_to_get_it(cupy_is):
    cupy_is(False)
    with pytest.raises(MissingPackageError, match=r"machine\.backend = cupy: CuPy is not installed: pip install cupy-"):
        check_backends(make_spec(backend="numpy,cupy"))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"dtype": "float64"}, "model.dtype = 'float64': allowed is float32, with backend cupy"),
        ({"cell": "mingru"}, "model.cell = 'mingru': allowed is elman, lstm or gru, with backend cupy"),
        ({"gradient_sum": "nccl", "allow_shared_gpu": True}, "machine.gradient_sum = 'nccl': allowed is mpi where "),
    ],
)
def test_what_the_gpu_has_not_is_refused_before_anything_is_built(cupy_is, asked, message):
    cupy_is(True)
    check_backends(make_spec(backend="cupy", precision="bfloat16"))
    with pytest.raises(SpecError) as raised:
        check_backends(make_spec(backend="cupy", **asked))
    assert str(raised.value).startswith(message)


def test_a_precision_needs_a_gpu():
    with pytest.raises(SpecError, match=r"machine\.precision = 'bfloat16': allowed is float32, unless"):
        check_backends(make_spec(precision="bfloat16"))


def test_nccl_needs_gpus():
    with pytest.raises(SpecError, match=r"machine\.gradient_sum = 'nccl': allowed is mpi, unless"):
        check_backends(make_spec(gradient_sum="nccl"))


def fake_cupy(count):
    return SimpleNamespace(cuda=SimpleNamespace(runtime=SimpleNamespace(getDeviceCount=count)))


def no_driver():
    raise RuntimeError("cudaErrorInsufficientDriver: too old\nmore lines")


@pytest.mark.parametrize(
    ("count", "message"),
    [
        (no_driver, "machine.backend = cupy: no usable GPU: cudaErrorInsufficientDriver: too old"),
        (lambda: 0, "machine.backend = cupy: no GPU on this host"),
    ],
)
def test_no_gpu_is_an_error_of_one_line(monkeypatch, count, message):
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(count))
    with pytest.raises(LaunchError) as raised:
        make_problem("lstm", dtype="float32").engine("cupy")
    assert str(raised.value) == message


def test_a_cuda_library_that_cannot_be_loaded_is_said_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(lambda: 1))
    monkeypatch.setitem(sys.modules, "hpcrnn.backends.cupy.engine", None)
    with pytest.raises(MissingPackageError, match=r"a CUDA library cannot be loaded: .* pip install 'cupy-cuda13x"):
        make_problem("lstm", dtype="float32").engine("cupy")
