"""Floor 0: the only place that talks to the kernel. One file per concern, the kernel's own names.

Wrappers take native types, raise OSError with the name of the call, and hold no policy. Boot modules:
they import a handful of the standard library and nothing else.
"""
