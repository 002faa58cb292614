"""What authors of graphs touch: Tasks, Plans, the graph builder, what their code is given and may return."""
