"""initspawn: run configured commands in sandboxes, before and after the network is up."""

__version__ = "0.1.0"
