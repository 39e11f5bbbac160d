"""Floor 2: owns tasks, their output, and time. One thread, one epoll loop, nothing that blocks."""
