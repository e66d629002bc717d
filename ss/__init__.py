"""ss: streaming target speaker extraction, from a corpus to an extracted voice.

Importing `ss` itself is cheap: each part is imported on its own (`ss.model`, `ss.trainer`, `ss.datasets`, ...).
"""

__version__ = "0.1.0"
