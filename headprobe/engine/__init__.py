"""Where work runs: for now on the cores of this machine."""
