"""SELinux in the guest: Debian's kernel has it, its command line turns it on, and the policy is ours."""

from __future__ import annotations

from qemu.guest import Guest
from qemu.image import PLACE

# In place of AppArmor: only one of the two can be active. Without a policy nothing is denied.
APPEND = "lsm=lockdown,capability,landlock,yama,selinux,bpf"
POLICY = f"/{PLACE}/qemu/selinux/minimal.cil"


def enforce(guest: Guest) -> None:
    """Load the policy of minimal.cil and enforce it, in a guest that was booted with APPEND.

    Labels are then `everybody:anything:kernel_t` and `…:confined_t`; see the policy. Raises GuestError.
    """
    guest.shell(f"secilc --output=/run/policy --filecontext=/run/contexts {POLICY}")
    guest.shell("cat /run/policy >/sys/fs/selinux/load && echo 1 >/sys/fs/selinux/enforce")
