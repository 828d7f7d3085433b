"""Launch commands of serving engines <-> scenarios."""
