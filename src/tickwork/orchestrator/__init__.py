"""The deterministic middle: what happens next is decided here, from the log alone.

`fold` (with `router`, `topology`, `retry`, `state`) is pure; `data_plane`, `control_plane` and `sweeper` are thin
shells that do its IO. User code is never loaded in this package.
"""
