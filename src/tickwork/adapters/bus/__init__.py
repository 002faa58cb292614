"""Adapters of the EventBus port."""
