"""Meters: counters that wrap, rights that are missing, models that are linear."""

import time
from pathlib import Path

import pytest

from skyshore.adapters.energy_modelled import ModelledMeter, linear_meter
from skyshore.adapters.energy_rapl import RaplMeter


def domain(root: Path, folder: str, name: str, energy_uj: int, wrap_uj: int = 1_000_000) -> Path:
    path = root / folder
    path.mkdir()
    (path / "name").write_text(f"{name}\n")
    (path / "energy_uj").write_text(f"{energy_uj}\n")
    (path / "max_energy_range_uj").write_text(f"{wrap_uj - 1}\n")
    return path / "energy_uj"


def test_rapl_adds_packages_and_memory_but_not_cores_and_survives_the_wrap(tmp_path):
    package = domain(tmp_path, "intel-rapl:0", "package-0", 900_000)
    domain(tmp_path, "intel-rapl:0:0", "core", 5)
    memory = domain(tmp_path, "intel-rapl:0:1", "dram", 0)
    meter = RaplMeter(tmp_path)
    assert meter.joules() == 0.0
    package.write_text("100000")
    memory.write_text("300000")
    (tmp_path / "intel-rapl:0:0" / "energy_uj").write_text("999")
    assert meter.joules() == pytest.approx(0.2 + 0.3)


def test_rapl_says_why_it_cannot_be_read(tmp_path):
    with pytest.raises(OSError, match="no RAPL package"):
        RaplMeter(tmp_path)


def test_the_linear_meter_counts_this_process_at_its_share_of_the_cores():
    meter = linear_meter(idle_watts=0.0, busy_watts=20.0, threads=2)
    before, cpu = meter.joules(), time.process_time()
    while time.process_time() - cpu < 0.05:
        sum(range(1000))
    spent = time.process_time() - cpu
    assert meter.source == "modelled:linear"
    assert meter.joules() - before == pytest.approx(spent * 10.0, rel=0.2)


def test_scaled_time_costs_idle_power_at_the_scaled_rate(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    meter = ModelledMeter("nodemodel", 5.0, lambda: 7.0, time_scale=10.0)
    clock[0] += 2.0
    assert meter.joules() == pytest.approx(5.0 * 10 * 2 + 7.0)
