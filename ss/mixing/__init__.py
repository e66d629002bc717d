"""Mixtures of two speakers with an enrolment recording, made from a corpus of single speakers.

Two steps, both pure: `plan` (what the corpus holds -> rows, one per mixture) and `render` (one row -> three waves). `job.mix`
does both for a folder; whoever wants mixtures without a folder calls `plan_row` and `render` alone.
"""
