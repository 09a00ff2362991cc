"""placematd: the control service of placemat, a data centre simulator built on systemd."""

__version__ = "3.0.0.dev0"
