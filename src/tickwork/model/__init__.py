"""Pure data: ids, graphs, records, the lifetime's log and the messages on the bus. Nothing here does IO."""
