"""A file system in a file, on a loop device, that can lose power: everything that is not on the disk is dropped.

The ioctl of ext4 and XFS stops the file system at once. Data and metadata that were never submitted to the device are
lost, and the journal is not written. The next mount replays the journal, as after a power cut. What was submitted is
not reordered: a disk that loses its own write cache behaves worse than this.

Needs root, and a mount namespace of its own (``unshare --mount``): the mounts end with the processes in it.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
import subprocess
import uuid
from pathlib import Path

_SHUTDOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN, XFS_IOC_GOINGDOWN
_NO_LOG_FLUSH = struct.pack("=I", 2)
_BOOT_ID = "/proc/sys/kernel/random/boot_id"

# The smallest that mkfs.xfs makes without special options is 300 MB.
_SIZES = {"ext4": 256 << 20, "xfs": 320 << 20}
_MKFS = {"ext4": ("mkfs.ext4", "-q", "-F"), "xfs": ("mkfs.xfs", "-q", "-f")}
KINDS = tuple(_SIZES)


class Volume:
    """A mounted file system.

    Args:
        directory: where the image and the mount point are created.
        kind: one of `KINDS`.
        owner: (uid, gid) of the mail root, or None for this process's.

    Raises:
        RuntimeError: from all methods, if a program fails; with its output.
    """

    def __init__(self, directory: Path, kind: str, owner: tuple[int, int] | None = None) -> None:
        self.kind = kind
        self.image = directory / f"{kind}.img"
        self.mount_point = directory / "volume"
        self.mount_point.mkdir(exist_ok=True)
        self.root = self.mount_point / "mail"
        self.image.unlink(missing_ok=True)
        with self.image.open("wb") as file:
            file.truncate(_SIZES[kind])
        _run(*_MKFS[kind], str(self.image))
        self._mount()
        self.root.mkdir()
        if owner:
            os.chown(self.root, *owner)
        self.sync()

    def _mount(self) -> None:
        # A loop device of its own for each mount: nothing of the image stays in the page cache of the last one.
        _run("mount", "-t", self.kind, "-o", "loop", str(self.image), str(self.mount_point))

    def sync(self) -> None:
        """Write everything to the disk."""
        descriptor = os.open(self.mount_point, os.O_RDONLY)
        try:
            ctypes.CDLL(None).syncfs(descriptor)
        finally:
            os.close(descriptor)

    def cut(self) -> None:
        """Drop everything that has not reached the disk; all further access fails."""
        cut_power(self.mount_point)

    def unmount(self) -> None:
        """Unmount; no process may have a file open."""
        _run("umount", str(self.mount_point))

    def copy_image(self, target: Path) -> None:
        """Copy the image, which must not be mounted."""
        _run("cp", "--sparse=always", str(self.image), str(target))

    def remount(self) -> None:
        """Mount again, which replays the journal."""
        self._mount()

    def fill_level(self) -> float:
        """Return the used share of the space or of the inodes, whichever is larger."""
        found = os.statvfs(self.root)
        return 1 - min(found.f_bavail / found.f_blocks, found.f_favail / max(found.f_files, 1))


def cut_power(mount_point: Path) -> None:
    """Drop everything that has not reached the disk of a file system; all further access fails."""
    descriptor = os.open(mount_point, os.O_RDONLY)
    try:
        fcntl.ioctl(descriptor, _SHUTDOWN, _NO_LOG_FLUSH)
    finally:
        os.close(descriptor)


class BootId:
    """Hides the kernel's boot_id behind a file, so that a remount can look like a restart of the machine."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "boot_id"
        self.change()
        _run("mount", "--bind", str(self._file), _BOOT_ID)

    def change(self) -> None:
        """Choose another boot_id."""
        self._file.write_text(f"{uuid.uuid4()}\n")


def _run(*command: str) -> None:
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        env={**os.environ, "PATH": path},
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stdout.decode(errors='replace').strip()}")
