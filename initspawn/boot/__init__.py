"""Floor 5: what is executed with `python3 -I -S`: the supervisor as a process."""
