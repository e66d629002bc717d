"""Target speaker extraction inside of other software: a call's audio as frames, and adapters for voice agents' frameworks."""
