"""The chaos suite of the cloud profile: real processes, real servers, and faults between them (docs/chaos.md)."""
