"""Host facts, on this machine and on machines made of files."""

import json
import os
import platform
import sys
import types

import pytest

from hpcrnn.records import host
from hpcrnn.records.attempt import attempt, attempts
from hpcrnn.records.host import cpu_quota, gpu_facts, host_facts, parse_ranges, ranges


def build(root, files):
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


X86 = {
    "proc/cpuinfo": "processor\t: 0\nmodel name\t: Fast CPU 9000\nflags\t: fpu avx2 fma avx512f amx_tile\n\n"
    "processor\t: 1\nmodel name\t: other\n",
    "proc/meminfo": "MemTotal:       131072 kB\nMemFree: 1 kB\nMemAvailable:   1024 kB\n",
    "proc/self/cgroup": "0::/job/step\n",
    "etc/os-release": 'NAME="X"\nPRETTY_NAME="Rocky Linux 9.4 (Blue Onyx)"\n',
    "sys/kernel/mm/transparent_hugepage/enabled": "[always] madvise never\n",
    "sys/devices/system/node/online": "0-1,4\n",
    "sys/devices/system/cpu/cpu2/cpufreq/scaling_governor": "performance\n",
    "sys/devices/system/cpu/cpu2/cpufreq/scaling_max_freq": "3500000\n",
    "sys/devices/system/cpu/cpu2/cache/index0/level": "1\n",
    "sys/devices/system/cpu/cpu2/cache/index0/type": "Data\n",
    "sys/devices/system/cpu/cpu2/cache/index0/size": "48K\n",
    "sys/devices/system/cpu/cpu2/cache/index3/level": "3\n",
    "sys/devices/system/cpu/cpu2/cache/index3/type": "Unified\n",
    "sys/devices/system/cpu/cpu2/cache/index3/size": "36M\n",
    **{
        f"sys/devices/system/cpu/cpu{cpu}/topology/{name}": value
        for cpu, siblings in {2: "2,6", 3: "3,7", 6: "2,6"}.items()
        for name, value in {"thread_siblings_list": siblings, "physical_package_id": "0"}.items()
    },
}


@pytest.fixture
def three_cpus(monkeypatch):
    monkeypatch.setattr(host, "affinity", lambda: [2, 3, 6])


def test_this_machine():
    facts = host_facts()
    assert facts["pid"] == os.getpid()
    assert facts["python"].endswith(platform.python_version())
    assert facts["n_cpus"] >= 1
    assert facts["memory_bytes"] > 2**28
    assert json.loads(json.dumps(facts)) == facts
    home = os.path.expanduser("~")  # noqa: PTH111 - as a text
    assert home not in json.dumps(facts)


def test_a_machine_of_files(tmp_path, three_cpus):
    facts = host_facts(build(tmp_path, X86))
    expected = {
        "cpu_model": "Fast CPU 9000",
        "simd": ["avx2", "fma", "avx512f", "amx_tile"],
        "virtual_machine": False,
        "system": "Rocky Linux 9.4 (Blue Onyx)",
        "affinity": "2-3,6",
        "n_cpus": 3,
        "n_physical_cores": 2,
        "n_sockets": 1,
        "n_numa_nodes": 3,
        "caches": {"L1d_bytes": 48 * 2**10, "L3_bytes": 36 * 2**20},
        "memory_bytes": 2**27,
        "available_memory_bytes": 2**20,
        "huge_pages": "always",
        "governor": "performance",
        "max_frequency_hz": 3_500_000_000,
        "frequency_hz": "unknown",
        "cpu_quota": None,
        "gpus": [],
    }
    assert {name: facts[name] for name in expected} == expected


def test_an_arm_processor(tmp_path, three_cpus):
    cpuinfo = "processor\t: 0\nFeatures\t: fp asimd sve sve2\nCPU implementer\t: 0x41\nCPU part\t: 0xd4f\n"
    facts = host_facts(build(tmp_path, {"proc/cpuinfo": cpuinfo}))
    assert facts["cpu_model"] == "Arm implementer 0x41 part 0xd4f"
    assert facts["simd"] == ["asimd", "sve", "sve2"]


@pytest.mark.parametrize("content", [None, "", "\0\xff nonsense :::\n- [ ]"])
def test_nothing_to_read_is_no_error(tmp_path, three_cpus, content):
    root = tmp_path if content is None else build(tmp_path, dict.fromkeys(X86, content))
    facts = host_facts(root)
    assert set(facts) == set(host_facts())
    for name in ("cpu_model", "caches", "memory_bytes", "huge_pages", "n_numa_nodes"):
        assert facts[name] in ("unknown", platform.processor(), 0), name
    json.dumps(facts)


def test_a_system_without_affinity(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert host.affinity() == list(range(os.cpu_count()))


@pytest.mark.parametrize(
    ("numbers", "text"),
    [([], ""), ([3], "3"), ([0, 1, 2, 3], "0-3"), ([0, 2, 3, 9], "0,2-3,9"), (range(128), "0-127")],
)
def test_ranges(numbers, text):
    assert ranges(numbers) == text
    assert parse_ranges(text) == list(numbers)


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({"proc/self/cgroup": "0::/\n"}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1.5),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "max 100000\n"}, None),
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/b/cpu.max": "800000 100000\n",
                "sys/fs/cgroup/a/cpu.max": "200000 100000\n",
                "sys/fs/cgroup/other/cpu.max": "100000 100000\n",
            },
            2.0,
        ),
        (
            {
                "proc/self/cgroup": "4:memory:/x\n3:cpu,cpuacct:/a\n",
                "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us": "50000\n",
                "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
            },
            0.5,
        ),
        ({"proc/self/cgroup": "0::/../../elsewhere\n", "sys/fs/cgroup/cpu.max": "100000 100000\n"}, 1.0),
    ],
)
def test_cpu_quota(tmp_path, files, quota):
    assert cpu_quota(build(tmp_path, files)) == quota


def test_quota_unknown_is_not_no_quota(tmp_path, three_cpus):
    assert host_facts(tmp_path)["cpu_quota"] == "unknown"


class BrokenError(Exception):
    pass


def fake_nvml(**changes):
    def refuse(*_args):
        raise BrokenError

    module = types.SimpleNamespace(
        NVML_CLOCK_SM=1,
        NVML_CLOCK_MEM=2,
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetCount=lambda: 2,
        nvmlDeviceGetHandleByIndex=lambda index: f"gpu{index}",
        nvmlDeviceGetName=lambda gpu: b"NVIDIA H200",
        nvmlDeviceGetUUID=lambda gpu: f"GPU-{gpu}",
        nvmlDeviceGetPciInfo=refuse,
        nvmlDeviceGetCudaComputeCapability=lambda gpu: (9, 0),
        nvmlDeviceGetMemoryInfo=lambda gpu: types.SimpleNamespace(total=2**37),
        nvmlSystemGetDriverVersion=lambda: "570.1",
        nvmlSystemGetCudaDriverVersion=lambda: 12080,
        nvmlDeviceGetMaxClockInfo=lambda gpu, clock: 1980 * clock,
        nvmlDeviceGetPowerManagementLimit=lambda gpu: 700_000,
        nvmlDeviceGetPersistenceMode=lambda gpu: 1,
        nvmlDeviceGetComputeMode=lambda gpu: 0,
        nvmlDeviceGetEccMode=lambda gpu: [1, 1],
        nvmlDeviceGetMigMode=refuse,
    )
    vars(module).update(changes)
    return module


@pytest.fixture
def driver(tmp_path):
    return build(tmp_path, {"proc/driver/nvidia/version": "NVRM version: x"})


def test_gpus(monkeypatch, driver):
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml())
    facts = gpu_facts(driver)
    assert [gpu["uuid"] for gpu in facts] == ["GPU-gpu0", "GPU-gpu1"]
    assert facts[0] == {
        "index": 0,
        "name": "NVIDIA H200",
        "uuid": "GPU-gpu0",
        "pci_bus": "unknown",
        "compute_capability": "9.0",
        "memory_bytes": 2**37,
        "driver": "570.1",
        "cuda_of_driver": 12080,
        "max_sm_clock_hz": 1_980_000_000,
        "max_memory_clock_hz": 3_960_000_000,
        "power_limit_w": 700.0,
        "persistence_mode": True,
        "compute_mode": 0,
        "ecc": True,
        "mig": "unknown",
    }
    json.dumps(facts)


def broken(*_args):
    raise BrokenError


@pytest.mark.parametrize("call", ["nvmlInit", "nvmlDeviceGetCount", "nvmlDeviceGetHandleByIndex"])
def test_a_driver_that_fails_has_no_gpus(monkeypatch, driver, call):
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml(**{call: broken}))
    assert gpu_facts(driver) == []


def test_a_shutdown_that_fails_does_not_matter(monkeypatch, driver):
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml(nvmlShutdown=broken))
    assert len(gpu_facts(driver)) == 2


def test_no_bindings_or_no_driver_no_gpus(monkeypatch, driver, tmp_path):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert gpu_facts(driver) == []
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml())
    assert gpu_facts(tmp_path / "none") == []


def test_attempts():
    assert attempt(lambda: 0) == 0
    assert attempt(lambda: False) is False
    assert attempt(lambda: None) == attempt(lambda: "") == attempt(broken) == "unknown"
    assert attempts({"a": broken, "b": lambda: [1]}) == {"a": "unknown", "b": [1]}
