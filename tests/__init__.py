"""Tests: their folders mirror src/tickwork; beside them acceptance, documentation and the tidy test."""
