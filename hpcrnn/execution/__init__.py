"""Running programs: communicators, transport, the executor, and the loop that measures."""
