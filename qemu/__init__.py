"""A small Debian in QEMU: an image builder, a runner, and a way to run commands in the guest.

Tools for development and tests. Nothing of it is installed with initspawn, and it imports nothing of it.
"""
