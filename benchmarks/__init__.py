"""What headprobe costs, side by side with what people would write or run instead: ratios of medians in one process."""
