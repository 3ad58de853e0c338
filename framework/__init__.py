"""Between stack and application: channels, lwsockets, handlers, workers and their supervisor."""
