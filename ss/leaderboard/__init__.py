"""The leaderboard: extractors of ours and of others on the same test sets, as tables, curves and a page."""
