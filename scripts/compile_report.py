"""The report of compile_check.py in words and columns."""

from typing import Any

GIB = 2**30


def table(report: dict[str, Any]) -> str:
    """What a person reads; the units are GiB = 2^30 bytes for memory, GB = 10^9 bytes for what is moved."""
    chip, flops, memory = report["chip"], report["flops"], report.get("memory")
    rows = [
        ("slice", f"{report['topology']}: {report['chips']} chips of {chip['name']}"),
        ("batch", f"{report['batch']}, {report['batch_per_chip']} a chip, accumulate {report['config']['accumulate']}"),
        ("effort of XLA", f"{report['effort']:g}" + ("" if report["effort"] == 0 else " (training compiles with 0)")),
        ("compile time", f"{report['compile_seconds']:.0f} s on {report['date']}"),
        ("versions", ", ".join(f"{name} {report['versions'][name]}" for name in ("jax", "libtpu"))),
        ("flags", " ".join(f"{k}={v}" for k, v in report["flags"].items() if v) or "none"),
        ("FLOPs a step", f"{flops['step'] / 1e12:.2f} T; a chip {flops['chip'] / 1e12:.3f} T: matrix products"),
        ("HBM a chip", f"{report['needed'] / GIB:.2f} GiB; a program may use {report['available'] / GIB:.2f} GiB"),
    ]
    if memory:
        rows += [(f"  {name}", f"{memory[name] / GIB:.2f} GiB") for name in memory]
        rows += [("  XLA's own peak", f"{report['xla_peak'] / GIB:.2f} GiB in use at once, by its count")]
        rows += _work(report)
    text = "\n".join(f"{name:<22}{value}" for name, value in rows)
    return text if report["fits"] else f"{text}\n{_does_not_fit(report)}"


def _work(report: dict[str, Any]) -> list[tuple[str, str]]:
    seconds, chip = report["seconds"], report["chip"]
    least = f"{report['least_traffic'] / 1e9:.1f} GB"
    sent = ", ".join(f"{name} {size / 1e9:.3f} GB" for name, size in report["collective_bytes"].items()) or "none"
    return [
        ("XLA's count a chip", f"{report['xla_flops'] / 1e12:.3f} TFLOP, {report['xla_bytes'] / 1e9:.1f} GB touched"),
        ("collectives a chip", sent),
        ("  sent, as rings", f"{report['sent_bytes'] / 1e9:.3f} GB"),
        ("seconds a step", "at the chip's published rates, each alone:"),
        ("  compute", f"{seconds['compute']:.4f} ({chip['flops'] / 1e12:.0f} TFLOP/s): what is counted from shapes"),
        ("  HBM", f"{seconds['hbm']:.4f} ({chip['hbm_rate'] / 1e9:.0f} GB/s): all memory once, {least}"),
        ("  links", f"{seconds['ici']:.4f} ({chip['ici_rate'] / 1e9:.0f} GB/s one way, all links)"),
        ("  roofline", f"{seconds['roofline']:.4f}: the largest of the three; a step takes longer"),
        ("  40 % of peak", f"{seconds['at_40_percent']:.4f}: an assumption, nothing was measured"),
    ]


def _does_not_fit(report: dict[str, Any]) -> str:
    needed, available = report["needed"] / GIB, report["available"] / GIB
    text = f"does not fit: {needed:.2f} GiB of {available:.2f} GiB a chip"
    if "batch_that_fits" not in report:
        return f"{text}; reduce batch_per_chip (--search tells to what)"
    if report["batch_that_fits"]:
        return f"{text}; reduce batch_per_chip to {report['batch_that_fits']}"
    return f"{text}, and no smaller batch does; try --config.model.remat=true or --config.mesh.fsdp=N"
