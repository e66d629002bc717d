"""Target speaker extraction inside of other software: voice agents, voice services."""
