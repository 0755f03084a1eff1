"""Captured work."""

from collections.abc import Callable, Sequence


class Graph:
    """What was given to streams while one of them captured; made by ``Stream.end_capture``."""

    def __init__(self, operations: Sequence[Callable[[], None]]) -> None:
        self.operations = tuple(operations)

    def launch(self, stream: "Stream | None" = None) -> None:  # noqa: F821 - it imports this module
        """Do it all again, in order."""
        from cupy.cuda.stream import submit

        for operation in self.operations:
            submit(operation, stream)

    def upload(self, stream: object = None) -> None:
        """There is nowhere to upload it to."""
