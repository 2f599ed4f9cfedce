"""What several test modules share: recorded sessions, generated configurations, ways to feed bytes."""
