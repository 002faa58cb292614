"""What the nodes of the coding agent share; each node's own file in `tasks/` and `plans/` is a few lines on top."""
