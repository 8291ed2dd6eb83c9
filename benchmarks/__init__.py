"""What headprobe costs, side by side with what people would write or run instead: ratios of medians in one process."""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # as the program does, before torch is loaded
