"""From a commit to an image in the registry: the pipeline, its log, and what it leaves on disk. Decisions are the core's."""
