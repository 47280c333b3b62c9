"""Log lines on their way to the log store: files that are followed, batches, what waits on disk. What a line is, the core decides."""
