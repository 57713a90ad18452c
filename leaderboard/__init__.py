"""The leaderboard's schema and validation of result records."""
