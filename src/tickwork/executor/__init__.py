"""Runs user code and publishes what came of it. It decides nothing: what runs next is the Control Plane's."""
