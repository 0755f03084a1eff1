"""What long work says while it goes on: a view on a terminal, a few plain lines elsewhere; an honest time left.

Nothing here has a thread or a timer: views are drawn when the work says something, which a measurement does between
steps, so that no step is timed while a view is drawn.
"""

from hpcrnn.benchmarks.progress.items import Items
from hpcrnn.benchmarks.progress.measuring import Progress

__all__ = ["Items", "Progress"]
