"""Floor 3: what a request means. No bytes, no sockets; every door calls the same functions."""
