"""hpcrnn: how recurrent networks scale on a parallel machine, in numbers a stranger can trust."""

__version__ = "0.1.0"
