"""Prove the Linux pads in a virtual machine with Debian's own kernel, which has uinput.

The guest sees this host's files, read-only, so it runs this very Python with this very source; only
the kernel and a few modules of it come from Debian's package. Needs no root. ::

    apt-get install --no-install-recommends qemu-system-x86 busybox-static cpio
    apt-get download linux-image-6.1.0-56-amd64        # or whichever there is
    python -m tests.qemu.boot linux-image-*.deb --out benchmarks/results/pads_qemu.json
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

PROGRAMS = ("qemu-system-x86_64", "busybox", "cpio", "dpkg-deb")

MODULES = (
    "drivers/virtio/virtio_ring", "drivers/virtio/virtio", "drivers/virtio/virtio_pci_modern_dev",
    "drivers/virtio/virtio_pci_legacy_dev", "drivers/virtio/virtio_pci", "net/9p/9pnet",
    "net/9p/9pnet_virtio", "fs/netfs/netfs", "fs/fscache/fscache", "fs/9p/9p",
    "drivers/input/evdev", "drivers/input/joydev",
)  # fmt: skip
"""What is loaded before Python starts, in an order that their dependencies allow."""

UINPUT = "drivers/input/misc/uinput"

INIT = """#!/bin/busybox sh
/bin/busybox mount -t devtmpfs none /dev
exec </dev/console >/dev/console 2>&1
for module in $(/bin/busybox cat /modules/order); do /bin/busybox insmod /modules/$module; done
/bin/busybox mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=loose,ro host /host
/bin/busybox mount -t proc none /host/proc
/bin/busybox mount -t sysfs none /host/sys
/bin/busybox mount --move /dev /host/dev
export PYTHONPATH={path} PYTHONDONTWRITEBYTECODE=1 PATH=/usr/bin:/bin HOME=/root
/bin/busybox chroot /host {python} {script} {uinput}
/bin/busybox poweroff -f
"""


def unpack(package: Path, folder: Path) -> tuple[Path, Path]:
    """Kernel and module folder out of a ``linux-image`` package, or of one that was unpacked."""
    if package.is_dir():
        return _parts(package)
    wanted = ["./boot", *(f"*/kernel/{name}.ko" for name in (*MODULES, UINPUT))]
    tar = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE)
    unpacked = ["tar", "-x", "-C", folder, "--wildcards", *wanted]
    with tar:
        subprocess.run(unpacked, stdin=tar.stdout, check=True)
    return _parts(folder)


def _parts(folder: Path) -> tuple[Path, Path]:
    (kernel,) = (folder / "boot").glob("vmlinuz-*")
    (modules,) = (folder / "lib/modules").glob("*/kernel")
    return kernel, modules


def make_initramfs(folder: Path, modules: Path) -> Path:
    """What the kernel starts: BusyBox, modules, and a script that hands over to Python."""
    root = folder / "initramfs"
    for name in ("bin", "dev", "host", "modules"):
        (root / name).mkdir(parents=True)
    shutil.copy(str(shutil.which("busybox")), root / "bin/busybox")
    for name in MODULES:
        shutil.copy(modules / f"{name}.ko", root / "modules")
    order = " ".join(f"{Path(name).name}.ko" for name in MODULES)
    (root / "modules/order").write_text(order)
    script = root / "init"
    script.write_text(INIT.format(path=f"{ROOT / 'src'}:{ROOT}", python=sys.executable,
                                  script=Path(__file__).with_name("guest.py"),
                                  uinput=modules / f"{UINPUT}.ko"))  # fmt: skip
    script.chmod(0o755)
    packed = folder / "initramfs.cpio"
    with packed.open("wb") as out:
        names = "\n".join(str(path.relative_to(root)) for path in root.rglob("*"))
        subprocess.run(["cpio", "-o", "-H", "newc", "--quiet"], cwd=root, input=names.encode(),
                       stdout=out, check=True)  # fmt: skip
    return packed


def cpu() -> list[str]:
    """Hardware virtualisation where the processor has it, emulation elsewhere.

    The emulated clock counts instructions and leaps over idle time: what the guest measures and
    waits for does not depend on how busy this host is.
    """
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    if {"vmx", "svm"} & set(flags) and os.access("/dev/kvm", os.R_OK | os.W_OK):
        return ["-accel", "kvm", "-cpu", "host"]
    return ["-accel", "tcg", "-cpu", "Nehalem", "-icount", "shift=4,sleep=off"]


def boot(package: Path, *, timeout_s: float) -> dict:
    """Boot the guest and return its report.

    Args:
        package: Debian's ``linux-image`` package, or the folder that it was unpacked into; its
            kernel and modules are used.
        timeout_s: After which the guest is ended. Without KVM it takes a minute of a whole core.

    Raises:
        RuntimeError: The guest did not report; with the end of what it printed.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kernel, modules = unpack(package, folder)
        serial = folder / "serial.log"
        command = [
            "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none",
            "-serial", f"file:{serial}", "-no-reboot", "-m", "768",
            *cpu(), "-kernel", kernel, "-initrd", make_initramfs(folder, modules),
            "-append", "console=ttyS0 panic=-1 mitigations=off nokaslr nowatchdog",
            "-virtfs", "local,path=/,mount_tag=host,security_model=none,readonly=on,"
            "multidevs=remap",
        ]  # fmt: skip
        started_s = time.monotonic()
        with contextlib.suppress(subprocess.TimeoutExpired):  # what it printed tells more
            subprocess.run(command, timeout=timeout_s, check=False, stdin=subprocess.DEVNULL)
        output = serial.read_text(errors="replace") if serial.exists() else ""
    found = re.search(r"^BEGIN (.*) END\r?$", output, re.MULTILINE)
    if found is None:
        raise RuntimeError(f"The guest did not report. It printed:\n{output[-4000:]}")
    return {**json.loads(found[1]), "seconds": round(time.monotonic() - started_s, 1)}


def main() -> None:
    """Boot, and write the report."""
    parser = argparse.ArgumentParser(description="Prove the Linux pads in a virtual machine.")
    parser.add_argument("package", type=Path, help="Debian's linux-image package, or its folder")
    parser.add_argument("--out", type=Path, help="where to write the report as JSON")
    parser.add_argument("--timeout-s", type=float, default=1800.0)
    options = parser.parse_args()
    report = json.dumps(boot(options.package, timeout_s=options.timeout_s), indent=1)
    if options.out is None:
        print(report)
    else:
        options.out.write_text(report + "\n")


if __name__ == "__main__":
    main()
