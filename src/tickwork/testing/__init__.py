"""The test kit that Tickwork ships: for authors of graphs, and for authors of adapters (`conformance`)."""
