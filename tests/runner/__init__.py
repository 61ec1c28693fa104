"""ADK's own Runner on the service: the same conversations leave the same traces as in memory."""
