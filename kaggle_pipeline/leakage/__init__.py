"""The leak audit: what would make a score a lie."""
